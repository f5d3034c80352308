"""Types that say what an argument may be, read by `checked` and by a job's configuration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ssl_swin.arguments import (
    Above0Range,
    Count,
    Fraction,
    InnerFraction,
    NotEmpty,
    OddWindow,
    Portion,
    Positive,
    SizePx,
    accepts,
    checked,
    in_words,
    shown,
)
from ssl_swin.errors import UserError


@checked
def scaled(encoder: object, *, factor: Positive, means: Sequence[float] = (0.5,)) -> int:
    return factor * len(means)


@checked
@dataclass(frozen=True)
class Settings:
    ratio: InnerFraction
    size_px: SizePx = 1


def test_checked__passes_on_what_fits() -> None:
    assert scaled(object(), factor=2) == 2
    assert scaled("any", factor=np.int64(3), means=np.array([1.0, 2.0])) == 6
    assert scaled("any", factor=torch.tensor(3), means=torch.tensor([1.0, 2.0])) == 6
    assert Settings(0.5, (2, 3)) == Settings(0.5, (2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 0}, "factor must be a whole number of at least 1, got 0"),
        ({"factor": True}, "factor must be a whole number of at least 1, got true"),
        ({"factor": "2"}, "factor must be a whole number of at least 1, got '2'"),
        ({"factor": 1, "means": 0.5}, "means must be a list of numbers, got 0.5"),
        ({"factor": 1, "means": [float("nan")]}, "means must be a list of numbers, got [nan]"),
    ],
)
def test_checked__refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        scaled(None, **arguments)
    assert str(refusal.value) == message


def test_checked__of_a_dataclass() -> None:
    with pytest.raises(UserError, match=r"ratio must be a number in \(0, 1\), got 1"):
        Settings(1)
    with pytest.raises(UserError, match=r"size_px must be .* got \[1, 2, 3\]"):
        Settings(0.5, (1, 2, 3))


@pytest.mark.parametrize(
    ("annotation", "words", "good", "bad"),
    [
        (Count, "a whole number of at least 0", [0, 7], [-1, 0.0, True]),
        (Fraction, "a number in [0, 1]", [0, 1, 0.5], [-0.1, 1.1, "0"]),
        (Portion, "a number in (0, 1]", [1, 0.5], [0, 1.5]),
        (InnerFraction, "a number in (0, 1)", [0.5], [0, 1]),
        (OddWindow, "a whole number of at least 3, odd", [3, 47], [1, 4, 3.0]),
        (NotEmpty, "a list of whole numbers of at least 1, not empty", [[1]], [[], [0], 1]),
        (
            Above0Range,
            "a list of 2 numbers above 0, the smaller first",
            [[1, 1], [0.5, 2]],
            [[2, 1], [0, 1], [1], [1, 2, 3]],
        ),
        (
            SizePx,
            "a whole number in [1, 16384] or a list of 2 whole numbers in [1, 16384]",
            [3, [3, 4]],
            [0, 16385, [3], [3, 4, 5], [0, 1]],
        ),
    ],
)
def test_types__accept_and_say_it(
    annotation: Any, words: str, good: list[Any], bad: list[Any]
) -> None:
    assert in_words(annotation) == words
    assert all(accepts(annotation, value) for value in good)
    assert not any(accepts(annotation, value) for value in bad)


def test_shown__is_short_and_as_yaml_has_it() -> None:
    assert [shown(value) for value in (None, False, "x", [1])] == ["null", "false", "'x'", "[1]"]
    assert len(shown(list(range(1000)))) == 120


class Encoder: ...


@checked
def embed(
    encoder: Encoder,
    device: complex | str = "cpu",
    names: Any = (),
    places: Mapping[str, Any] = {},
) -> str:
    return f"{type(encoder).__name__} {device}"


def test_checked__of_a_class() -> None:
    assert embed(Encoder(), 1j, names=3) == "Encoder 1j"
    assert embed(SimpleNamespace(_orig_mod=Encoder())) == "SimpleNamespace cpu"  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"embed\(\) got an unexpected keyword argument 'encoderr'"):
        embed(encoderr=Encoder())  # type: ignore[call-arg]
    with pytest.raises(UserError, match=r"^encoder must be an Encoder, got 'runs/x'$"):
        embed("runs/x")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^encoder must be an Encoder, got an OSError$"):
        embed(OSError())  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^places must be a group of settings, got \[1\]$"):
        embed(Encoder(), places=[1])  # type: ignore[arg-type]
    assert embed(Encoder(), places={"a": Encoder()}) == "Encoder cpu"
    with pytest.raises(UserError, match=r"^device must be a complex or text, got 3$"):
        embed(Encoder(), 3)


def test_accepts__no_object_for_a_text() -> None:
    assert not accepts(str, Encoder())
    assert not accepts(Sequence[str], [Encoder()])
    assert accepts(Callable[[], None], print)
    assert not accepts(dict[str, Any], 3)
