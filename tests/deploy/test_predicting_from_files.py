"""Exported files as predictors: what the network says, from the file alone."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ssl_swin
from ssl_swin.cli import main
from ssl_swin.deploy.export import deploy
from ssl_swin.deploy.facts import read_facts
from ssl_swin.deploy.file_predictor import FilePredictor
from ssl_swin.deploy.targets.torch_export import TorchExport
from ssl_swin.errors import UserError
from ssl_swin.inference.calibration import Calibration, save_calibration
from ssl_swin.inference.predictors.base import Options
from ssl_swin.probing.feature_store import weights_fingerprint
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import save_backbone, save_classifier

CLASSES = ["ant", "bee", "cat", "cow", "dog", "elk", "fox"]
TEMPERATURE = 1.5
OPTIONS = ("--workers", "0", "--batch-size", "4", "--top", "3")
KINDS = {"onnx": "it.onnx", "openvino": "it.xml", "torch-export": "it.pt2"}


SMALL = {"img_size_px": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}
MOMENTS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def classifier(folder: Path, *, seed: int) -> Classifier:
    torch.manual_seed(seed)
    model = Classifier(ssl_swin.swin(version=1, **SMALL), num_classes=len(CLASSES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.head.weight.normal_(std=3)
    save_classifier(folder, model, classes=CLASSES, **MOMENTS, card="", crop_ratio=0.75)
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated classifier, it.pt2 made of it, and 10 photographs of two of its classes."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    for number in range(10):
        path = folder / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (90, 70 + number, 3), dtype=np.uint8)).save(path)
    model = classifier(folder / "run/classifier", seed=1)
    weights = weights_fingerprint(model)
    calibration = Calibration(TEMPERATURE, 0.2, 0.1, 10, weights)
    save_calibration(folder / "run/classifier", calibration)
    deploy(
        folder / "run/classifier", folder / "it.pt2", to="torch-export", outputs=None, dtype="uint8"
    )
    return folder


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The world in the working directory."""
    for path in world.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)


def exported(kind: str) -> str:
    out = KINDS[kind]
    if Path(out).exists():
        return out
    deploy(Path("run/classifier"), Path(out), to=kind, outputs=None, dtype="uint8")
    return out


def rows_in(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def agree(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of a kind and the folder it was made of say the same."""
    assert main(["predict", "run", "photos", "folder.csv", *OPTIONS, "--device", "cpu"]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    out = exported(kind)
    assert main(["predict", out, "photos", "file.csv", *OPTIONS]) == 0
    assert capsys.readouterr().out.splitlines() == ["file.csv: 10 images", told]
    assert told.startswith("top-1 ")
    for ours, theirs in zip(rows_in("folder.csv"), rows_in("file.csv"), strict=True):
        for column in ("name", "label", "class1", "class2", "class3"):
            assert ours[column] == theirs[column]
        for column in ("score1", "score2", "score3"):
            assert float(theirs[column]) == pytest.approx(float(ours[column]), rel=1e-3, abs=1e-5)


def test_torch_export__says_what_the_folder_says(
    here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    agree("torch-export", capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_runtime__says_what_the_folder_says(
    here: None, kind: str, module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs pip install 'ssl_swin[{kind}]'")
    agree(kind, capsys)


def test_python__gives_every_class_of_folders_and_files(here: None) -> None:
    names, classes, scores = ssl_swin.predict("run", "photos")
    assert names == sorted(names) and len(names) == 10 and classes == tuple(CLASSES)
    logits = ssl_swin.predict(Path("run/classifier"), "photos", scores="logit").scores
    torch.testing.assert_close(scores, (logits / TEMPERATURE).softmax(dim=1))
    assert len({*scores.argmax(dim=1).tolist()}) > 1, "one answer for all would prove little"
    of_file = ssl_swin.predict("it.pt2", "photos", batch_size=3)
    assert of_file.names == names and of_file.classes == classes
    torch.testing.assert_close(of_file.scores, scores, rtol=1e-4, atol=1e-6)
    smaller = ssl_swin.predict("run", "photos", crop_ratio=0.5).scores
    assert (smaller - scores).abs().max() > 1e-3


def test_file__goes_with_its_own_facts_alone(here: None) -> None:
    first = FilePredictor.load(Path("it.pt2"))
    assert first.encoder.img_size_px == (32, 32) and first.encoder.in_chans == 3
    assert (first.crop_ratio, first.temperature) == (0.75, TEMPERATURE)
    classifier(Path("other"), seed=2)
    deploy(Path("other"), Path("other.pt2"), to="torch-export", outputs=None, dtype="float32")
    second = FilePredictor.load(Path("other.pt2"))
    assert second.facts(Options())["file"] != first.facts(Options())["file"]
    levels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    logits_of = second.logits_function(torch.device("cpu"), "float32")
    torch.testing.assert_close(logits_of(levels), logits_of(levels / 255))
    of_levels = first.logits_function(torch.device("cpu"), "float32")
    with pytest.raises(UserError, match=r"takes pixels of torch\.uint8, and these are torch\.floa"):
        of_levels(levels / 255)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device", "meta"), "device"),
        (("--precision", "bfloat16"), "an exported file computes on the CPU, as it was exported"),
    ],
)
def test_file__refuses_to_compute_otherwise(
    here: None, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "it.pt2", "photos", "x.csv", *OPTIONS, *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("x.csv").exists() and not Path("x.csv.parts").exists()


def test_file__that_is_none_or_gives_no_scores(
    here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("junk.pt2").write_bytes(b"no program")
    assert main(["predict", "junk.pt2", "photos", "x.csv"]) == 2
    assert "junk.pt2 is no torch.export file that ssl-swin export wrote, or it is damaged" in (
        capsys.readouterr().err
    )
    encoder = ssl_swin.swin(version=1, **SMALL)
    save_backbone(Path("b"), encoder, mean=[0.5] * 3, std=[0.5] * 3, card="")
    deploy(Path("b"), Path("b.pt2"), to="torch-export", outputs="stages", dtype="uint8")
    assert main(["predict", "b.pt2", "photos", "x.csv"]) == 2
    said = capsys.readouterr().err
    assert "b.pt2 gives stage1, stage2, and no scores of classes" in said


def test_file__names_what_is_missing_to_run_it(
    here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("it.onnx").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["predict", "it.onnx", "photos", "x.csv"]) == 2
    assert "ONNX needs onnxruntime: pip install 'ssl_swin[onnx]'" in capsys.readouterr().err


def test_read_facts__of_a_later_version(here: None) -> None:
    facts = TorchExport().facts(Path("it.pt2"))
    assert read_facts(json.loads(json.dumps(facts))).classes == tuple(CLASSES)
    with pytest.raises(UserError, match=r"was written by ssl_swin 9\.0"):
        read_facts({**facts, "format": 2, "ssl_swin": "9.0"})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("input", "dtype"), "load"),
        (("input", "height_px"), "x"),
        (("preparation", "crop_ratio"), 0),
        (("preparation", "crop_ratio"), float("nan")),
        (("temperature",), -1),
        (("temperature",), float("inf")),
        (("classes",), 3),
    ],
)
def test_read_facts__refuses_what_cannot_be(
    here: None, path: tuple[str, ...], value: object
) -> None:
    told = json.loads(json.dumps(TorchExport().facts(Path("it.pt2"))))
    inner = told
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises((LookupError, TypeError, ValueError)):
        read_facts(told)


def test_file__that_names_fewer_classes_than_it_scores(here: None) -> None:
    predictor = FilePredictor.load(Path("it.pt2"))
    predictor.classes = predictor.classes[:-1]
    logits_of = predictor.logits_function(torch.device("cpu"), "float32")
    with pytest.raises(UserError, match=r"names 6 classes, and gives scores of \(2, 7\) for 2"):
        logits_of(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


def test_facts__weights_are_of_the_whole_network(here: None) -> None:
    model = classifier(Path("whole/classifier"), seed=1)
    told = TorchExport().facts(Path("it.pt2"))
    assert told["weights"] == weights_fingerprint(model)
