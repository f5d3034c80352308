"""Words for a shell and values for Hydra, against the programs that read them."""

import os
import random
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ssl_swin.quoting import hydra_value, override, shell_line, shell_path, shell_word

HOSTILE = (
    *(
        "",
        " ",
        "a b",
        "it's",
        '"',
        "$(touch pwned)",
        "`id`",
        "a=b",
        "[1,2]",
        "{a:b}",
        "-x",
        "--help",
    ),
    *(
        "a\nb",
        "a\n",
        "tab\there",
        "\x1b[31m",
        "\u2028",
        "é漢字",
        "~",
        "~root",
        "*",
        "?",
        "!!",
        "#x",
        "a;b|c",
    ),
    *(
        "${x}",
        "$${x}",
        "\\${x}",
        "\\",
        "\\\\",
        'a\\"',
        "a\\",
        "${a}\\",
        "%s",
        "&",
        "<>",
        "^",
        "\udcff",
    ),
    *(
        "null",
        "True",
        "1",
        "-1",
        "1.5",
        ".5",
        "5.",
        "1e5",
        "1_0",
        "nan",
        "-inf",
        "0123",
        "1:2",
        ":",
        "+",
    ),
)
PARSER = OverridesParser.create()
ATOMS = [*HOSTILE, *" \t\n'\"`$(){}[]=,:;|&<>*?~!#%^@+-/\\.", "a", "7", "_", "${", "}", "\\'"]


def texts(number: int) -> Iterator[str]:
    """The hostile texts, and random sequences of hostile parts."""
    yield from HOSTILE
    draw = random.Random(0)
    for _ in range(number):
        yield "".join(draw.choices(ATOMS, k=draw.randint(1, 6)))


def read_by_hydra(word: str) -> Any:
    """The value that a configuration has after `key=value` on Hydra's command line."""
    parsed = PARSER.parse_override(word)
    assert parsed.key_or_group == "some.key"
    assert not parsed.is_sweep_override()
    cfg = OmegaConf.create({"value": parsed.value()})
    return OmegaConf.to_container(cfg, resolve=True)["value"]  # type: ignore[index, call-overload]


def test_override__hydra_reads_the_very_text() -> None:
    for text in texts(250):
        value = read_by_hydra(override("some.key", text))
        assert (value, type(value)) == (text, str)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -3, 0.1, 1e-7, 1e300, [], {}),
        *([0.5, 0.25], ["a,b", "]"], [[1, 2], ["x y"]], {"a": "b c", "d": None}, ["${x}", "'"]),
    ],
)
def test_override__hydra_reads_other_values(value: object) -> None:
    assert read_by_hydra(override("some.key", value)) == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("runs/pretrain/swin_t", "runs/pretrain/swin_t"),
        ("https://host/a.tar", "https://host/a.tar"),
        ("a b", '"a b"'),
        ('"', r'"\""'),
        ("1e5", '"1e5"'),
        ("seed=0", '"seed=0"'),
        ((32, 48), "[32,48]"),
    ],
)
def test_hydra_value__leaves_what_is_harmless(value: object, written: str) -> None:
    assert hydra_value(value) == written


def test_shell_word__printable_text_is_shlexs() -> None:
    printable = [text for text in texts(3000) if text.isprintable()]
    assert shlex.split(shell_line(printable)) == printable


def test_shell_line__bash_reads_the_very_words(tmp_path: Path) -> None:
    """Also control characters and bytes that are no text; and nothing is executed."""
    words = list(texts(1500))
    line = shell_line(["printf", "%s\\0", *words])
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, cwd=tmp_path, check=True)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("-x", "./-x"),
        ("--out a", "'./--out a'"),
        ("a/-x", "a/-x"),
        (Path("/a b"), "'/a b'"),
        ("a\x1b", "$'a\\x1b'"),
    ],
)
def test_shell_path__is_never_an_option(path: str | Path, word: str) -> None:
    assert shell_path(path) == word


def test_shell_word__control_characters_and_text_beside_them() -> None:
    assert shell_word("it's\n\\é") == r"$'it\'s\x0a\\é'"
