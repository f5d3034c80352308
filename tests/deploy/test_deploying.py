"""Files for deployment: they compute what the network does and say so, or are not written."""

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_swin.cli import main
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.deploy import export as module
from ssl_swin.deploy.export import deploy
from ssl_swin.deploy.network import load_network
from ssl_swin.deploy.proof import Difference, prove
from ssl_swin.deploy.targets.base import target_of
from ssl_swin.deploy.targets.onnx_file import OPSET
from ssl_swin.encoders.beit import beit
from ssl_swin.encoders.convnext import convnext
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resnet import resnet
from ssl_swin.encoders.swin import swin
from ssl_swin.encoders.swin_ape import swin_ape
from ssl_swin.encoders.swin_mlp import swin_mlp
from ssl_swin.errors import UserError
from ssl_swin.inference.calibration import Calibration, save_calibration
from ssl_swin.pixels import normalize
from ssl_swin.tasks.classification import Classifier
from ssl_swin.tasks.segmentation import Segmentation
from ssl_swin.tasks.segmenting import Inference
from ssl_swin.weights.backbone import save_backbone, save_classifier, save_task
from ssl_swin.weights.segmenter import load_segmenter

SWIN = {"img_size_px": 64, "window_size": 4, "embed_dim": 8, "depths": (1, 2, 1),
        "num_heads": (1, 2, 2)}  # fmt: skip
VIT = {"img_size_px": 64, "patch_size_px": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
ENCODERS: dict[str, Any] = {
    "swin v1": lambda: swin(version=1, **SWIN),
    "swin v2": lambda: swin(version=2, **SWIN),
    "swin, positions": lambda: swin_ape(**SWIN),
    "swin-mlp": lambda: swin_mlp(**SWIN),
    "vit": lambda: beit(**VIT),
    "vit, positions": lambda: beit(**VIT, fixed_positions=True),
    "resnet": lambda: resnet(img_size_px=64, depths=(1, 1, 1, 1), channels=(8, 8, 8, 16)),
    "convnext": lambda: convnext(
        img_size_px=64, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), version=1
    ),
}
MEAN, STD, CLASSES = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), ("cat", "a|<b>", "dog")
needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="needs pip install 'ssl_swin[onnx]'"
)
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs pip install 'ssl_swin[openvino]'"
)


def disturbed(network: nn.Module) -> Any:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def backbone(folder: Path, kind: str = "swin v1") -> Encoder:
    torch.manual_seed(0)
    encoder: Encoder = disturbed(ENCODERS[kind]())
    save_backbone(folder, encoder, mean=MEAN, std=STD, card="", crop_ratio=0.8)
    return encoder


def classifier(folder: Path, kind: str = "swin v1") -> Classifier:
    torch.manual_seed(0)
    model: Classifier = disturbed(Classifier(ENCODERS[kind](), num_classes=3))
    save_classifier(folder, model, classes=CLASSES, mean=MEAN, std=STD, card="", crop_ratio=0.8)
    return model


def pixels(batch_size: int = 3) -> Tensor:
    noise = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (batch_size, 3, 64, 64), generator=noise, dtype=torch.uint8)


def facts_in(path: Path) -> dict[str, Any]:
    told = {"ssl_swin.json": ""}
    torch.export.load(path, extra_files=told)
    found: dict[str, Any] = json.loads(told["ssl_swin.json"])
    return found


def test_classifier__gives_scores_of_raw_pixels(tmp_path: Path) -> None:
    model = classifier(tmp_path / "classifier")
    out = tmp_path / "it.pt2"
    made = deploy(tmp_path / "classifier", out, to="torch-export", outputs=None, dtype="uint8")
    with torch.no_grad():
        expected = model(normalize(pixels(), MEAN, STD))
        found = torch.export.load(out).module()(pixels())
    torch.testing.assert_close(found, expected)
    assert made.difference.largest < 1e-5 < made.difference.scale
    assert made.files == (out, tmp_path / "it.pt2.md")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classifier", "it.pt2", "it.pt2.md"]

    facts = facts_in(out)
    assert facts["classes"] == [*CLASSES] and facts["outputs"] == ["scores"]
    assert facts["input"] | {"values": ""} == {
        "name": "pixels", "dtype": "uint8", "layout": "NCHW", "channels": 3, "height_px": 64,
        "width_px": 64, "values": "",
    }  # fmt: skip
    assert facts["preparation"]["shorter_side_px"] == 80  # 64 / 0.8
    assert facts["normalisation_inside"] == {"mean": [*MEAN], "std": [*STD]}
    card = (tmp_path / "it.pt2.md").read_text()
    assert "| input | `pixels`, uint8 (batch, 3, 64 x 64) |" in card
    assert "cat, a\\|&lt;b>, dog. Probabilities are the softmax of scores / 1." in card
    assert f"float32: {made.difference} |" in card


def segmenter(folder: Path) -> Segmentation:
    torch.manual_seed(0)
    model: Segmentation = disturbed(
        Segmentation(
            ENCODERS["swin v1"](),
            CLASSES,
            crop_px=64,
            head_channels=8,
            auxiliary_channels=8,
            auxiliary_weight=0.4,
            dropout=0.1,
            loss_mean="all",
            masks=MaskClasses(),
            inference=Inference(short_px=None),
        )
    )
    save_task(folder, model, mean=MEAN, std=STD, card="")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("to", ["torch-export", pytest.param("onnx", marks=needs_onnx)])
def test_segmenter__gives_scores_of_every_pixel(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    to: str,
) -> None:
    model = segmenter(tmp_path / "run/segmenter")
    backbone(tmp_path / "run/backbone")
    monkeypatch.chdir(tmp_path)
    target = target_of(to)
    out = f"it{target.ending}"
    assert main(["export", "run", out, "--to", to, "--img-size-px", "50", "84"]) == 0
    assert "pixel_scores: largest difference" in capsys.readouterr().out
    asked = torch.randint(0, 256, (3, 3, 50, 84), dtype=torch.uint8)
    (found,) = target.runner(Path(out))(asked)
    with torch.no_grad():
        images = normalize(asked, MEAN, STD)
        maps = model.norms(model.encoder.maps_any_size(images))
        expected = F.interpolate(model.decode_head(maps), (50, 84), mode="bilinear")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    facts = target.facts(Path(out))
    assert facts["classes"] == [*CLASSES] and facts["input"]["width_px"] == 84
    assert "or a part of one, of 50 x 84" in Path(f"{out}.md").read_text()
    in_python = load_segmenter("run").probabilities(asked[0])
    torch.testing.assert_close(in_python, expected[0].softmax(0), rtol=1e-4, atol=1e-5)
    assert main(["predict", out, "photos", "x.csv"]) == 2
    assert "gives pixel_scores, and no scores of classes" in capsys.readouterr().err


def test_segmenter__refuses_what_it_does_not_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter(tmp_path / "run/segmenter")
    backbone(tmp_path / "backbone")
    monkeypatch.chdir(tmp_path)
    export = ["--to", "torch-export"]
    assert main(["export", "run", "it.pt2", *export, "--outputs", "embedding"]) == 2
    assert "run/segmenter is a segmenter, which gives scores" in capsys.readouterr().err
    assert main(["export", "backbone", "it.pt2", *export, "--img-size-px", "64", "96"]) == 2
    assert "--img-size-px is for a segmenter, which takes any" in capsys.readouterr().err
    assert not list(tmp_path.glob("it*"))


@pytest.mark.slow
def test_file__tells_no_path_of_this_machine(tmp_path: Path) -> None:
    backbone(tmp_path / "backbone")
    out = tmp_path / "it.pt2"
    deploy(tmp_path / "backbone", out, to="torch-export", outputs="stages", dtype="uint8")
    content = out.read_bytes()
    for path in (str(Path(module.__file__).parents[2]), str(tmp_path), str(Path.home())):
        assert path.encode() not in content, path


@pytest.mark.slow
def test_floats__are_taken_as_values(tmp_path: Path) -> None:
    encoder = backbone(tmp_path / "backbone")
    out = tmp_path / "it.pt2"
    deploy(tmp_path / "backbone", out, to="torch-export", outputs=None, dtype="float32")
    values = pixels() / 255
    with torch.no_grad():
        expected = encoder.pool(encoder(normalize(values, MEAN, STD)))
        torch.testing.assert_close(torch.export.load(out).module()(values), expected)
    assert facts_in(out)["input"]["dtype"] == "float32"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
def test_torch_export__of_every_family_and_stage(tmp_path: Path, kind: str) -> None:
    encoder = backbone(tmp_path / "backbone", kind)
    out = tmp_path / "it.pt2"
    deploy(tmp_path / "backbone", out, to="torch-export", outputs="stages", dtype="uint8")
    with torch.no_grad():
        expected = encoder.stages(normalize(pixels(), MEAN, STD))
        found = torch.export.load(out).module()(pixels())
    assert facts_in(out)["outputs"] == [f"stage{n + 1}" for n in range(len(expected))]
    for ours, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("kind", ENCODERS)
def test_onnx__of_every_family_and_stage(tmp_path: Path, kind: str) -> None:
    import onnxruntime

    encoder = backbone(tmp_path / "backbone", kind)
    out = tmp_path / "it.onnx"
    made = deploy(tmp_path / "backbone", out, to="onnx", outputs="stages", dtype="uint8")
    session = onnxruntime.InferenceSession(str(out))
    with torch.no_grad():
        expected = encoder.stages(normalize(pixels(7), MEAN, STD))
    answers = session.run(None, {"pixels": pixels(7).numpy()})
    for ours, theirs in zip(expected, answers, strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-3, atol=1e-4)
    (given,) = session.get_inputs()
    assert given.shape == ["batch", 3, 64, 64] and given.type == "tensor(uint8)"
    assert [each.name for each in session.get_outputs()] == [*made.network.output_names]
    facts = json.loads(session.get_modelmeta().custom_metadata_map["ssl_swin"])
    assert facts["architecture"] == encoder.architecture
    assert str(Path(module.__file__).parents[2]).encode() not in out.read_bytes()
    check_that_others_can_read(out)


def check_that_others_can_read(path: Path) -> None:
    """TensorRT and others know the operations of the standard, and no functions of ours."""
    import onnx

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", OPSET)]
    assert not model.functions
    for node in model.graph.node:
        known = onnx.defs.get_schema(node.op_type, OPSET, node.domain)
        assert not node.domain and not known.deprecated, node.op_type
        assert not any(attribute.g.node for attribute in node.attribute), "control flow"


@needs_onnx
@pytest.mark.slow
def test_onnx__of_a_classifier(tmp_path: Path) -> None:
    import onnxruntime

    model = classifier(tmp_path / "classifier", "swin v2")
    out = tmp_path / "it.onnx"
    deploy(tmp_path / "classifier", out, to="onnx", outputs=None, dtype="uint8")
    (scores,) = onnxruntime.InferenceSession(str(out)).run(["scores"], {"pixels": pixels().numpy()})
    with torch.no_grad():
        expected = model(normalize(pixels(), MEAN, STD))
    torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=1e-3, atol=1e-4)


@needs_openvino
@pytest.mark.slow
def test_openvino__of_a_classifier(tmp_path: Path) -> None:
    import openvino

    model = classifier(tmp_path / "classifier")
    out = tmp_path / "it.xml"
    made = deploy(tmp_path / "classifier", out, to="openvino", outputs=None, dtype="uint8")
    assert {path.name for path in made.files} == {"it.xml", "it.bin", "it.xml.md"}
    compiled = openvino.compile_model(out, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        expected = model(normalize(pixels(), MEAN, STD))
    found = torch.from_numpy(compiled(pixels().numpy())[0])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.slow
def test_aoti__compiles_a_backbone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = disturbed(beit(**VIT | {"depth": 1}))
    save_backbone(tmp_path / "backbone", encoder, mean=MEAN, std=STD, card="")
    out = tmp_path / "it.pt2"
    deploy(tmp_path / "backbone", out, to="aoti", outputs=None, dtype="uint8")
    run = torch._inductor.aoti_load_package(str(out))
    with torch.no_grad():
        expected = encoder.pool(encoder(normalize(pixels(), MEAN, STD)))
    torch.testing.assert_close(run(pixels()), expected, rtol=1e-4, atol=1e-5)
    assert json.loads(run.get_metadata()["ssl_swin"])["architecture"] == encoder.architecture


def test_prove__refuses_other_values_and_one_batch_size_alone(tmp_path: Path) -> None:
    backbone(tmp_path)
    network = load_network(tmp_path, None)
    right = lambda given: (network.module(given),)  # noqa: E731
    assert prove(network, right, "uint8") == Difference(0.0, pytest.approx(1, abs=5))
    for wrong in (1.001, float("nan")):
        with pytest.raises(UserError, match="does not compute what the network does: largest"):
            prove(network, lambda given, by=wrong: (network.module(given) * by,), "uint8")
    with pytest.raises(UserError, match=r"gives \[\(2, 32\)\] for a batch of 1"):
        prove(network, lambda given: (torch.zeros(2, 32),), "uint8")


@pytest.mark.slow
def test_deploy__leaves_nothing_where_the_proof_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone(tmp_path / "backbone")

    def refuse(*_: Any) -> None:
        raise UserError("not equal")

    monkeypatch.setattr(module, "prove", refuse)
    with pytest.raises(UserError, match="not equal"):
        deploy(tmp_path / "backbone", tmp_path / "it.pt2", to="torch-export", outputs=None,
               dtype="uint8")  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]


def test_deploy__names_an_encoder_that_cannot_be_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone(tmp_path / "backbone")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("data-dependent\ncontrol flow")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(
        UserError, match=r"a Swin Transformer V1 cannot be exported: torch\.export says data-dep"
    ):
        deploy(tmp_path / "backbone", tmp_path / "it.pt2", to="torch-export", outputs=None,
               dtype="uint8")  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("it.onnx", "--to", "torch-export"), "a file of torch.export ends in .pt2"),
        (("it.pt2", "--to", "torch-export", "--outputs", "scores"), "is a backbone, which has no"),
        (("it.bin", "--to", "timm", "--outputs", "stages"), "--outputs is for torch-export, onnx"),
        (("it.bin", "--to", "timm", "--pixel-dtype", "uint8"), "--pixel-dtype is for torch-exp"),
        (("backbone", "--to", "torch-export"), "backbone"),
    ],
)
def test_command__refuses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    backbone(tmp_path / "backbone")
    monkeypatch.chdir(tmp_path)
    assert main(["export", "backbone", *words]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["backbone"]


@pytest.mark.slow
def test_command__keeps_a_card_and_tells_of_a_calibration_of_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier(tmp_path / "run/classifier")
    calibration = Calibration(2.0, 10, 0.1, 0.05, weights="of others")
    save_calibration(tmp_path / "run/classifier", calibration)
    monkeypatch.chdir(tmp_path)
    words = ["export", "run", "it.pt2", "--to", "torch-export"]
    Path("it.pt2.md").write_text("mine")
    assert main(words) == 2
    assert "it.pt2.md belongs to it.pt2, and exists: remove it" in capsys.readouterr().err
    assert Path("it.pt2.md").read_text() == "mine" and not Path("it.pt2").exists()
    Path("it.pt2.md").unlink()
    assert main(words) == 0
    assert "note: the calibration beside the classifier is of other weights" in (
        capsys.readouterr().out
    )


def test_command__names_the_extra_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone(tmp_path / "backbone")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["export", "backbone", "it.onnx", "--to", "onnx"]) == 2
    said = capsys.readouterr().err
    assert "ONNX needs onnx, onnxscript, onnxruntime: pip install 'ssl_swin[onnx]'" in said


@pytest.mark.slow
def test_command__writes_and_says_how_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier(tmp_path / "run/classifier")
    monkeypatch.chdir(tmp_path)
    assert main(["export", "run", "new/it.pt2", "--to", "torch-export"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"scores: largest difference \d\.\de[-+]\d\d, of values up to", said)
    assert "wrote new/it.pt2, new/it.pt2.md" in said
    assert sorted(path.name for path in Path("new").iterdir()) == ["it.pt2", "it.pt2.md"]
    (line,) = re.findall("run it: (.*)", said)
    assert eval(line, {"torch": torch, "pixels": pixels()}).shape == (3, 3)
