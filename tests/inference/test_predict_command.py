"""`ssl-swin predict` and `calibrate`: equal to the classifier by hand, on every path to it."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from worlds import MEAN, STD, draw, hand_on, rows_in

from ssl_swin.cli import main
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.inference import parts as parts_module
from ssl_swin.inference import run as run_module
from ssl_swin.inference.calibration import calibration_error, fit_calibration
from ssl_swin.inference.vectors import rows_of
from ssl_swin.pixels import normalize
from ssl_swin.reporting.tiles import GAP_PX, TEXT_PX, TILE_PX
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import save_classifier

CLASSES = ["ant", "bee", "cat", "cow", "dog", "elk", "fox"]
NUM_IMAGES = 22
OPTIONS = ("--workers", "0", "--device", "cpu", "--batch-size", "4")


@pytest.fixture
def classifier(
    tmp_path: Path, tiny_encoder: Callable[..., SwinEncoder], monkeypatch: pytest.MonkeyPatch
) -> Classifier:
    """A run with a classifier of seven classes, and images of two of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts_module, "PART_IMAGES", 8)
    draw(Path("photos"), NUM_IMAGES)
    torch.manual_seed(1)
    model = Classifier(tiny_encoder(), num_classes=len(CLASSES)).eval()
    with torch.no_grad():
        model.head.weight.normal_(std=3)
        logits = logits_by_hand(model)
        model.head.bias.sub_(logits.mean(dim=0))  # else all images were of one class
    folder = Path("run/classifier")
    save_classifier(folder, model, classes=CLASSES, mean=MEAN, std=STD, card="", crop_ratio=0.75)
    return model


def logits_by_hand(model: Classifier) -> Tensor:
    """Of the sorted photos, one at a time, in the view that the classifier's folder says."""
    crop = CentreCrop(model.encoder.img_size_px, crop_ratio=0.75)
    logits = []
    for path in sorted(Path("photos").rglob("*.png")):
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        view = crop.on_pixels(pixels, np.random.default_rng(0))
        with torch.no_grad():
            features = model.encoder(normalize(view[None], MEAN, STD)).mean(dim=(2, 3))
            logits.append(features @ model.head.weight.T + model.head.bias)
    return torch.cat(logits)


def predict(out: str, *options: str, images: str = "photos", model: str = "run") -> int:
    return main(["predict", model, images, out, *OPTIONS, *options])


@pytest.mark.parametrize("model", ["run", "run/classifier"])
@pytest.mark.parametrize("scores", ["probability", "logit"])
def test_predict__equals_the_classifier_by_hand(
    classifier: Classifier, model: str, scores: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("out.csv", "--top", "3", "--scores", scores, model=model) == 0
    logits = logits_by_hand(classifier)
    wanted = logits if scores == "logit" else logits.softmax(dim=1)
    paths = sorted(Path("photos").rglob("*.png"))
    rows = rows_in("out.csv")
    assert [row["name"] for row in rows] == [str(path.relative_to("photos")) for path in paths]
    assert [row["label"] for row in rows] == [path.parent.name for path in paths]
    for row, expected in zip(rows, wanted, strict=True):
        order = expected.argsort(descending=True)[:3].tolist()
        assert [row[f"class{rank}"] for rank in (1, 2, 3)] == [CLASSES[each] for each in order]
        found = [float(row[f"score{rank}"]) for rank in (1, 2, 3)]
        np.testing.assert_allclose(found, expected[order], rtol=1e-3, atol=1e-4)
        assert "class4" not in row
    labels = torch.tensor([CLASSES.index(path.parent.name) for path in paths])
    top = logits.argsort(dim=1, descending=True)
    first, five = (100 * (top[:, :k] == labels[:, None]).any(dim=1).float().mean() for k in (1, 5))
    assert len({*top[:, 0].tolist()}) > 2, "one answer for all would prove little"
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith(f"top-1 {first:.1f} %, top-5 {five:.1f} % of 22 images; ")


def test_predict__every_kind_of_file_says_the_same(classifier: Classifier) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    for ending in ("csv", "jsonl", "parquet"):
        assert predict(f"out.{ending}", "--top", "2") == 0
    table = pq.read_table("out.parquet").to_pylist()
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    for row, line, entry in zip(rows_in("out.csv"), lines, table, strict=True):
        listed = [each["class"] for each in line["predictions"]]
        scores = [each["score"] for each in line["predictions"]]
        assert (line["name"], line["label"]) == (row["name"], row["label"])
        assert (entry["name"], entry["label"]) == (row["name"], row["label"])
        assert listed == [row["class1"], row["class2"]] == entry["classes"]
        np.testing.assert_allclose(scores, entry["scores"], rtol=1e-5)
        assert scores == [float(row["score1"]), float(row["score2"])]


def test_predict__without_labels_or_with_others(
    classifier: Classifier, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("plain.csv", "--no-labels", "--top", "99") == 0
    assert capsys.readouterr().out == "plain.csv: 22 images\n"
    assert list(rows_in("plain.csv")[0])[-1] == "score7"
    assert "label" not in rows_in("plain.csv")[0]
    Path("photos/dog").rename("photos/hound")
    assert predict("some.csv") == 0
    assert "of 11 images; " in capsys.readouterr().out.splitlines()[-1]
    assert {row["label"] for row in rows_in("some.csv")} == {"cat", "hound"}
    Path("photos/cat").rename("photos/puss")
    assert predict("none.csv") == 0
    assert "no class of the data is one of the classifier's" in capsys.readouterr().out


def test_predict__goes_on_to_the_same_bytes_and_lists_bad_images(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photos/cat/004.png").write_bytes(b"no image")
    assert predict("whole.csv") == 0
    assert "1 image could not be read, listed in whole.csv.bad.csv" in capsys.readouterr().out
    assert [row["name"] for row in rows_in("whole.csv.bad.csv")] == ["cat/004.png"]

    def cut(*args: object, **options: object) -> Iterator[object]:
        for number, each in enumerate(rows_of(*args, **options)):  # type: ignore[arg-type]
            if number == 3:
                raise KeyboardInterrupt
            yield each

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "rows_of", cut)
        assert predict("cut.csv") == 130
    assert predict("cut.csv") == 0
    assert "going on after 8 of 22 images" in capsys.readouterr().out
    assert Path("cut.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert Path("cut.csv.bad.csv").read_bytes() == Path("whole.csv.bad.csv").read_bytes()


def test_predict__draws_images_with_their_classes(classifier: Classifier) -> None:
    assert predict("out.csv", "--figure", "overview.png") == 0
    picture = np.asarray(Image.open("overview.png"))
    side, high = TILE_PX + GAP_PX, TILE_PX + TEXT_PX + GAP_PX
    assert picture.shape[:2] == (4 * high + GAP_PX, 6 * side + GAP_PX)
    last = picture[3 * high + GAP_PX : 3 * high + TILE_PX, 3 * side + GAP_PX : 4 * side]
    assert last.std() > 20
    after = picture[3 * high + GAP_PX :, 4 * side + GAP_PX :]
    assert (after == 255).all(), "22 images leave the last two tiles empty"


def test_predict__refuses_a_backbone_and_a_task_that_it_does_not_know(
    classifier: Classifier,
    tiny_encoder: Callable[..., SwinEncoder],
    capsys: pytest.CaptureFixture[str],
) -> None:
    hand_on(Path("backbone"), tiny_encoder)
    assert predict("out.csv", model="backbone") == 2
    assert "backbone is a backbone without a classification head" in capsys.readouterr().err
    config = json.loads(Path("run/classifier/config.json").read_text())
    Path("run/classifier/config.json").write_text(json.dumps(config | {"task": "juggling"}))
    assert predict("out.csv") == 2
    assert "is for juggling, which predict does not know: it knows classification" in (
        capsys.readouterr().err
    )


def test_calibrate__fits_and_predict_uses_it(
    classifier: Classifier, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("before.csv") == 0
    assert main(["calibrate", "run", "photos", *OPTIONS]) == 0
    told = capsys.readouterr().out
    logits = logits_by_hand(classifier)
    paths = sorted(Path("photos").rglob("*.png"))
    labels = torch.tensor([CLASSES.index(path.parent.name) for path in paths])
    expected = fit_calibration(logits, labels, weights="")
    found = re.search(r"temperature ([\d.]+), fitted on 22 images: .* ([\d.]+) % after", told)
    assert found is not None
    assert float(found[1]) == pytest.approx(expected.temperature, abs=0.01)
    assert abs(expected.temperature - 1) > 0.1, "a temperature of 1 would change nothing"
    assert predict("after.csv") == 0
    told = capsys.readouterr().out
    assert "note: probabilities are calibrated on 22 images: temperature" in told
    assert f"expected calibration error {found[2]} %" in told.splitlines()[-1]
    scaled = (logits / expected.temperature).softmax(dim=1).max(dim=1).values
    before, after = rows_in("before.csv"), rows_in("after.csv")
    assert [row["class1"] for row in before] == [row["class1"] for row in after]
    np.testing.assert_allclose([float(row["score1"]) for row in after], scaled, rtol=1e-2)
    with torch.no_grad():
        classifier.head.bias.add_(1)
    folder = Path("run/classifier")
    save_classifier(folder, classifier, classes=CLASSES, mean=MEAN, std=STD, card="")
    assert predict("other.csv") == 0
    assert "the calibration beside the classifier is of other weights" in capsys.readouterr().out


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_fit_calibration__equals_a_brute_force_search(sharpness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(4000, 5, generator=generator) * 2
    labels = torch.multinomial(true.softmax(dim=1), 1, generator=generator)[:, 0]
    logits = true * sharpness
    found = fit_calibration(logits, labels, weights="")
    grid = torch.linspace(-2, 2, 4001, dtype=torch.float64).exp()
    losses = torch.stack([F.cross_entropy(logits.double() / each, labels) for each in grid])
    assert found.temperature == pytest.approx(float(grid[losses.argmin()]), rel=2e-3)
    assert found.temperature == pytest.approx(sharpness, rel=0.1)
    if sharpness != 1:
        assert found.ece_after < 0.3 * found.ece_before


def test_calibration_error__by_hand() -> None:
    """Two bins: of 0.9, one of two is right; of 0.6, one of one. Gaps 0.8 and -0.4 of 3 images."""
    confidences = torch.tensor([0.9, 0.9, 0.6])
    error = calibration_error(confidences, torch.tensor([True, False, True]))
    assert error == pytest.approx((0.8 + 0.4) / 3)
    assert calibration_error(torch.tensor([1.0, 1.0]), torch.tensor([True, True])) == 0


def test_calibrate__refuses_images_without_labels(
    classifier: Classifier, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "run", "photos", *OPTIONS, "--no-labels"]) == 2
    assert "photos has no labels, which a calibration is fitted to" in capsys.readouterr().err
    for name in ("cat", "dog"):
        Path("photos", name).rename(Path("photos", f"x{name}"))
    assert main(["calibrate", "run", "photos", *OPTIONS]) == 2
    assert "no image has a label that the classifier knows" in capsys.readouterr().err
    assert not Path("run/classifier/calibration.json").exists()
