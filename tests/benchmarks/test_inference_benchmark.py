"""The comparison of ways to run a network: who takes part, ratios, differences, accuracy."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import ssl_swin
from benchmarks.inference import __main__ as command
from benchmarks.inference.measuring import Comparison, Facts, accuracies, compare
from benchmarks.inference.subject import Labelled, Subject, top1, trained_subject
from benchmarks.inference.variants import REFERENCE, WAYS, prepared
from ssl_swin.deploy.network import load_network
from ssl_swin.errors import UserError
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import save_classifier

SMALL = {"img_size_px": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    torch.manual_seed(0)
    model = Classifier(ssl_swin.swin(version=1, **SMALL), num_classes=2)
    half = [0.5] * 3
    save_classifier(tmp_path / "c", model, classes=["cat", "dog"], mean=half, std=half, card="")
    return Subject("small", tmp_path / "c", load_network(tmp_path / "c", "scores"))


def test_compare__takes_turns_on_the_same_pixels_and_says_how_far_answers_are(
    subject: Subject,
) -> None:
    turns: list[str] = []
    eager = prepared("eager", subject, Path("."), 1)
    assert not isinstance(eager, str)

    def noted(name: str, shift: float) -> object:
        def run(pixels: Tensor) -> Tensor:
            turns.append(name)
            return eager(pixels) + shift

        return run

    runs = {REFERENCE: noted("a", 0), "shifted": noted("b", 0.25)}
    found = compare(subject, runs, 3, rounds=2)  # type: ignore[arg-type]
    assert "".join(turns) == "a" + "aabb" + "abab"
    assert found.variants["shifted"].difference == pytest.approx(0.25, abs=1e-6)
    assert found.variants[REFERENCE].difference == 0
    assert [len(each.wall_s) for each in found.variants.values()] == [2, 2]


def test_rows__are_medians_of_the_ratios_of_rounds() -> None:
    reference = Facts(0.0, 0.1, wall_s=[4.0, 4.0, 6.0], cpu_s=[4.0, 4.0, 4.0])
    faster = Facts(0.5, 9.0, wall_s=[2.0, 1.0, 1.0], cpu_s=[2.0, 4.0, 1.0])
    comparison = Comparison(2, 1.0, {REFERENCE: reference, "b": faster})
    _, line = command.rows(comparison, {REFERENCE: 0.9, "b": 0.875})
    assert line == [
        *("b", "1000.0", "2.00", "1.00 to 4.00", "4.00", "2.00 to 6.00", "5.0e-01", "9.0", "87.5")
    ]


def test_top1__and_batches_that_do_not_divide(subject: Subject) -> None:
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
    assert top1(scores, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
    pixels = torch.zeros(35, 1, 1, 1, dtype=torch.uint8)
    pixels[34] = 9
    labels = torch.tensor([0] * 34 + [1])
    judged = Subject("", Path(), subject.network, Labelled(pixels, labels))
    sizes = []

    def last_is_one(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        flat = batch.flatten().float()
        return torch.stack([torch.ones(len(batch)), flat], dim=1)

    assert accuracies(judged, {"x": last_is_one}) == {"x": 1.0}
    assert sizes == [32, 32]


def test_trained_subject__has_the_classifiers_view_and_labels(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number, kind in enumerate(("dog", "cat", "dog", "dog", "elk")):
        path = Path("photos") / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (50, 40, 3), dtype=np.uint8)).save(path)
    found = trained_subject("c", "photos", num_images=3).labelled
    assert found is not None
    assert found.pixels.shape == (3, 3, 32, 32) and found.pixels.dtype == torch.uint8
    assert found.labels.tolist() == [0, 1, 1]  # of cat and three dogs; elks are unknown
    Path("photos/dog").rename("photos/hound")
    Path("photos/cat").rename("photos/puss")
    with pytest.raises(UserError, match="no image of photos has a class that c knows"):
        trained_subject("c", "photos", num_images=3)


def test_prepared__names_what_is_not_installed(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert prepared("OpenVINO", subject, Path("."), 1) == (
        "not installed: onnx, onnxscript, onnxruntime, openvino: pip install 'ssl_swin[openvino]'"
    )


def test_main__names_every_variant_that_is_not_in_the_table(
    tmp_path: Path, subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    words = ["--classifier", str(subject.folder), "--variants", "eager bf16", "--rounds", "2"]
    command.main([*words, "--batch-size", "2", "--json", str(tmp_path / "x.json")])
    told = capsys.readouterr().out
    assert "| eager bf16 |" in told and "| eager      |" in told
    for name in WAYS.keys() - {"eager", "eager bf16"}:
        assert f"not in it: {name}: " in told
    written = json.loads((tmp_path / "x.json").read_text())
    facts = written["results"]["batches"][0]["variants"]["eager bf16"]
    assert 0 < facts["difference"] < 0.05 and len(facts["cpu_s"]) == 2
    assert written["results"]["absent"].keys() == WAYS.keys() - {"eager", "eager bf16"}
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model swin_x", "unknown model 'swin_x'; known: swin_b"),
        ("--images photos", "--images is for --classifier"),
        ("--classifier nowhere", "nowhere"),
        ("--rounds 0", "must be at least 1, got 0"),
        ("--variants abacus", "invalid choice: 'abacus'"),
    ],
)
def test_main__a_wrong_word_ends_in_one_message(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(words.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_main__every_runtime_that_is_here(
    tmp_path: Path, subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--classifier", str(subject.folder), "--rounds", "2", "--batch-size", "1", "3"]
    command.main([*words, "--json", str(tmp_path / "x.json")])
    results = json.loads((tmp_path / "x.json").read_text())["results"]
    for name, way in WAYS.items():
        is_here = all(importlib.util.find_spec(module) for module in way.needs)
        taken = [name in batch["variants"] for batch in results["batches"]]
        assert taken == [is_here and not way.is_slow] * 2
    for batch in results["batches"]:
        for name, most in {"ONNX Runtime": 1e-5, "ONNX Runtime int8": 0.5}.items():
            if name in batch["variants"]:
                assert batch["variants"][name]["difference"] < most * batch["largest_score"]
