"""Published UPerNets in and out: the original's numbers, transformers' class, and round trips."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssl_swin.cli import main
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.encoders.resnet import resnet
from ssl_swin.encoders.swin import swin
from ssl_swin.errors import UserError
from ssl_swin.tasks.segmenter import Segmenter, auxiliary_head
from ssl_swin.tasks.segmenting import Inference
from ssl_swin.tasks.upernet import upsampled
from ssl_swin.weights.backbone import load_backbone, save_backbone
from ssl_swin.weights.formats.dense_names import OF_OPENMMLAB, OF_SWIN
from ssl_swin.weights.formats.importing import import_weights
from ssl_swin.weights.formats.segmenters import export_segmenter, import_segmenter, segmenter_as
from ssl_swin.weights.segmenter import LoadedSegmenter, load_segmenter, save_segmenter

SHARED = Path(__file__).parents[4] / "shared" / "golden"
CLASSES = ("wall", "floor", "tree", "door", "sky")
SIZES = ("224x224", "230x317", "33x41", "112x96")
MOMENTS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PARTS = ("weights", "inputs", "outputs")


@pytest.fixture(scope="module")
def golden() -> Path:
    folder = Path(os.environ.get("SSL_SWIN_GOLDEN", SHARED)) / "dense"
    if not folder.is_dir():
        pytest.skip("../shared/golden/dense is not here")
    return folder


@pytest.fixture
def published(golden: Path, tmp_path: Path) -> Path:
    """A file as Swin's segmentation code writes it, of the golden encoder and heads."""
    encoder = load_file(golden / "swin_v1_w7_weights.safetensors")
    state = {f"backbone.{name}": tensor for name, tensor in encoder.items()}
    state |= load_file(golden / "upernet_heads_weights.safetensors")
    path = tmp_path / "upernet.pth"
    torch.save({"state_dict": state, "meta": {"CLASSES": CLASSES, "epoch": 3}}, path)
    return path


@pytest.fixture
def segmenter(tiny_encoder: Any) -> LoadedSegmenter:
    encoder = tiny_encoder(img_size_px=128)
    torch.manual_seed(0)
    model = Segmenter(encoder, channels=8, num_classes=3).eval()
    auxiliary = auxiliary_head(encoder, channels=4, num_classes=3).eval()
    for part in (model, auxiliary):
        for name, tensor in part.state_dict().items():
            if tensor.is_floating_point() and "index" not in name:
                tensor.add_(0.1 * torch.rand_like(tensor))
    return LoadedSegmenter(
        model, ("a", "b", "c"), **MOMENTS, inference=Inference(), auxiliary=auxiliary
    )


def tensors(segmenter: LoadedSegmenter) -> dict[str, Tensor]:
    """All but the norm that ended the encoder, which no map sees."""
    state = segmenter.model.state_dict()
    if segmenter.auxiliary is not None:
        state |= segmenter.auxiliary.state_dict(prefix="auxiliary.")
    return {name: t for name, t in state.items() if not name.startswith("encoder.model.norm.")}


def equal(ours: LoadedSegmenter, theirs: LoadedSegmenter) -> bool:
    a, b = tensors(ours), tensors(theirs)
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


@pytest.mark.parametrize("naming", ["swin", "openmmlab"])
def test_import__computes_what_the_original_computes(
    published: Path, golden: Path, naming: str, tmp_path: Path
) -> None:
    loaded, report = import_segmenter(published)
    if naming == "openmmlab":
        save_segmenter(tmp_path / "x", loaded, card="")
        export_segmenter(tmp_path / "x", tmp_path / "mm.pth", to=naming)
        loaded, report = import_segmenter(tmp_path / "mm.pth", format_name=naming)
    assert loaded.classes == CLASSES and loaded.model.encoder.img_size_px == (224, 224)
    assert {entry.reason for entry in report.dropped} == {"rebuilt from the sizes, and found equal"}
    model, arrays = loaded.model, load_file(golden / "swin_v1_w7_maps.safetensors")
    with torch.no_grad():
        for size in SIZES:
            image = arrays[f"{size}.image"].float()
            maps = model.norms(model.encoder.maps_any_size(image))
            expected = [arrays[f"{size}.map{level}"] for level in range(4)]
            for ours, theirs in zip(maps, expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
            scores = model(image)
            torch.testing.assert_close(scores, model.decode_head(expected), rtol=0, atol=1e-4)
            assert scores.std() > 0.1
        _, inputs, outputs = (
            load_file(golden / f"upernet_heads_{part}.safetensors") for part in PARTS
        )
        features = [inputs[f"features.{level}"] for level in range(4)]
        assert loaded.auxiliary is not None
        for name, scores in (
            ("decode", model.decode_head(features)),
            ("auxiliary", loaded.auxiliary(features[2])),
        ):
            torch.testing.assert_close(scores, outputs[f"eval.{name}"], rtol=0, atol=1e-5)


def test_export__gives_the_published_file_back(published: Path, tmp_path: Path) -> None:
    loaded, _ = import_segmenter(published)
    save_segmenter(tmp_path / "x", loaded, card="")
    export_segmenter(tmp_path / "x", tmp_path / "again.pth", to="swin")
    before, after = (torch.load(path) for path in (published, tmp_path / "again.pth"))
    assert after["meta"] == {"CLASSES": list(CLASSES)}
    before, after = before["state_dict"], after["state_dict"]
    assert before.keys() == after.keys()
    assert all(after[name].equal(before[name]) for name in before)


@pytest.mark.slow
def test_swin_t__has_the_published_names_and_number_of_parameters(golden: Path) -> None:
    expected = json.loads((golden / "weight_decay_upernet_swin_t.json").read_text())
    encoder = swin(
        **{"version": 1, "img_size_px": 224, "window_size": 7, "embed_dim": 96},
        **{"depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    )
    model = Segmenter(encoder, channels=512, num_classes=150)
    auxiliary = auxiliary_head(encoder, channels=256, num_classes=150)
    loaded = LoadedSegmenter(
        model, tuple(map(str, range(150))), **MOMENTS, inference=Inference(), auxiliary=auxiliary
    )
    state, _ = segmenter_as(loaded, OF_SWIN)
    buffers = ("running_mean", "running_var", "num_batches_tracked", "relative_position_index")
    parameters = {name: t for name, t in state.items() if not name.endswith(buffers)}
    assert parameters.keys() == expected["weight_decay"].keys() and len(parameters) == 220
    assert sum(t.numel() for t in parameters.values()) == expected["parameters"] == 59_941_862
    newer, _ = segmenter_as(loaded, OF_OPENMMLAB)
    assert {name for name in newer if name.startswith("backbone.norm")} == {
        f"backbone.norm{level}.{part}" for level in range(4) for part in ("weight", "bias")
    }


@pytest.mark.parametrize("to", ["swin", "openmmlab"])
def test_round_trip__gives_back_every_bit(
    segmenter: LoadedSegmenter, to: str, tmp_path: Path
) -> None:
    save_segmenter(tmp_path / "run/segmenter", segmenter, card="")
    report = export_segmenter(tmp_path / "run", tmp_path / "out.pth", to=to)
    assert [entry.name for entry in report.dropped] == ["norm.weight", "norm.bias"]
    assert report.missing == ()
    again, told = import_segmenter(tmp_path / "out.pth")
    assert equal(again, segmenter) and again.classes == segmenter.classes
    assert told.resized == told.missing == ()
    image = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        assert again.model(image).equal(segmenter.model(image))
    save_segmenter(tmp_path / "x", again, card="")
    assert equal(load_segmenter(tmp_path / "x"), segmenter)
    backbone, report = import_weights(tmp_path / "out.pth", img_size_px=128)
    assert "its UPerNet is left out; `ssl-swin import --task segmentation` takes it" in report.notes
    ours, theirs = backbone.encoder.model.state_dict(), again.model.encoder.model.state_dict()
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_transformers__computes_the_same(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.SwinConfig(
        **{"embed_dim": 8, "depths": [2, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 4},
        **{"image_size": 128, "out_features": [f"stage{number}" for number in range(1, 5)]},
    )
    config = transformers.UperNetConfig(
        **{"backbone_config": backbone, "hidden_size": 8, "num_labels": 3},
        **{"auxiliary_channels": 4, "auxiliary_in_channels": 32},
        id2label={0: "a", 1: "b", 2: "c"},
    )
    theirs = transformers.UperNetForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    theirs.save_pretrained(tmp_path / "hf")
    loaded, report = import_segmenter(tmp_path / "hf")
    assert loaded.classes == ("a", "b", "c")
    assert all("layernorm" in e.name or "index" in e.name for e in report.dropped)
    image = torch.randn(1, 3, 75, 90)
    with torch.no_grad():
        ours = upsampled(loaded.model(image), image)
        torch.testing.assert_close(ours, theirs(image).logits, rtol=1e-4, atol=1e-4)
        assert loaded.auxiliary is not None and ours.std() > 0.1


@pytest.mark.parametrize("with_auxiliary", [True, False])
def test_transformers__load_what_is_written(
    segmenter: LoadedSegmenter, with_auxiliary: bool, tmp_path: Path
) -> None:
    """Their class gives our scores at a size that nothing divides, and the bits come back."""
    transformers = pytest.importorskip("transformers")
    auxiliary = segmenter.auxiliary if with_auxiliary else None
    masks = MaskClasses(reduce_zero_label=True)
    given = replace(segmenter, masks=masks, auxiliary=auxiliary)
    save_segmenter(tmp_path / "run/segmenter", given, card="")
    report = export_segmenter(tmp_path / "run", tmp_path / "hf", to="huggingface")
    assert [entry.name for entry in report.dropped] == ["norm.weight", "norm.bias"]
    assert [entry.name for entry in report.missing] == ["auxiliary_head"] * (not with_auxiliary)
    theirs, info = transformers.UperNetForSemanticSegmentation.from_pretrained(
        tmp_path / "hf", output_loading_info=True
    )
    assert not any(info[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched"))
    assert theirs.config.id2label == dict(enumerate(given.classes))
    assert (theirs.auxiliary_head is not None) == with_auxiliary
    image = torch.randn(1, 3, 75, 90)
    with torch.no_grad():
        found = theirs.eval()(image).logits
        ours = upsampled(given.model(image), image)
        torch.testing.assert_close(found, ours, rtol=1e-4, atol=1e-4)
        assert ours.std() > 1e-3
        if with_auxiliary:
            features = theirs.backbone(image).feature_maps
            assert auxiliary is not None
            torch.testing.assert_close(
                theirs.auxiliary_head(features), auxiliary(features[2]), rtol=1e-4, atol=1e-4
            )
    images = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    assert images.do_reduce_labels and tuple(images.image_mean) == given.mean
    again, _ = import_segmenter(tmp_path / "hf")
    assert again.classes == given.classes
    assert equal(again, given)


def test_auxiliary_head__that_is_another_is_left_out(
    segmenter: LoadedSegmenter, tmp_path: Path
) -> None:
    state, _ = segmenter_as(segmenter, OF_SWIN)
    state["auxiliary_head.convs.1.conv.weight"] = torch.zeros(4, 4, 3, 3)
    state["somebody.elses"] = torch.zeros(1)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    loaded, report = import_segmenter(tmp_path / "x.pth")
    assert loaded.auxiliary is None and loaded.classes == ("0", "1", "2")
    reasons = {entry.name: entry.reason for entry in report.dropped}
    assert "another auxiliary head" in reasons["auxiliary_head.convs.1.conv.weight"]
    assert "not part of a UPerNet" in reasons["somebody.elses"]
    save_segmenter(tmp_path / "y", loaded, card="")
    report = export_segmenter(tmp_path / "y", tmp_path / "z.pth", to="swin")
    assert [entry.name for entry in report.missing] == ["auxiliary_head"]


def without(state: dict[str, Tensor], *parts: str) -> dict[str, Tensor]:
    return {name: t for name, t in state.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("decode_head.conv_seg", "it holds no head of a UPerNet"),
        ("decode_head.fpn_convs.1", r"5 missing: fpn_convs\.1"),
        ("backbone.norm1.weight", r"1 missing: 1\.weight"),
        ("backbone.layers.0.blocks.0.attn.qkv.weight", "not a Swin in any of the formats"),
    ],
)
def test_import__says_what_is_missing(
    segmenter: LoadedSegmenter, lost: str, message: str, tmp_path: Path
) -> None:
    state, _ = segmenter_as(segmenter, OF_SWIN)
    torch.save({"state_dict": without(state, lost)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=message):
        import_segmenter(tmp_path / "x.pth")


def test_import__refuses_other_encoders_and_numbers(
    segmenter: LoadedSegmenter, tiny_encoder: Any, tmp_path: Path
) -> None:
    save_backbone(tmp_path / "v2", tiny_encoder(version=2), **MOMENTS, card="")
    with pytest.raises(UserError, match="and no segmenter or detector"):
        import_segmenter(tmp_path / "v2")
    state, _ = segmenter_as(segmenter, OF_OPENMMLAB)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="it has 3 classes, and 2 names are given"):
        import_segmenter(tmp_path / "x.pth", classes=["a", "b"])
    with pytest.raises(UserError, match="not of the format 'swin'"):
        import_segmenter(tmp_path / "x.pth", format_name="swin")


@pytest.mark.parametrize("kind", ["V2", "ResNet"])
def test_export__refuses_what_others_have_not(
    kind: str, tiny_encoder: Any, segmenter: LoadedSegmenter, tmp_path: Path
) -> None:
    encoder = (
        tiny_encoder(version=2, img_size_px=128)
        if kind == "V2"
        else resnet(img_size_px=64, depths=(1, 1, 1, 1), block="basic", channels=(8, 8, 16, 16))
    )
    model = Segmenter(encoder, channels=8, num_classes=2).eval()
    loaded = LoadedSegmenter(model, ("a", "b"), **MOMENTS, inference=Inference())
    save_segmenter(tmp_path / "x", loaded, card="")
    with pytest.raises(UserError, match="is written with Swin V1, and this is a"):
        export_segmenter(tmp_path / "x", tmp_path / "out.pth", to="openmmlab")
    with pytest.raises(UserError, match="as openmmlab, swin or huggingface, and not as 'timm'"):
        export_segmenter(tmp_path / "x", tmp_path / "out.pth", to="timm")
    assert not (tmp_path / "out.pth").exists()


def test_commands__import_and_export(
    segmenter: LoadedSegmenter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = tmp_path / "run", str(tmp_path / "out.pth")
    save_segmenter(run / "segmenter", segmenter, card="")
    save_backbone(run / "backbone", segmenter.model.encoder, **MOMENTS, card="")
    assert main(["export", str(run), file, "--to", "openmmlab"]) == 0
    assert "dropped: norm.weight and 1 more: each map" in capsys.readouterr().out
    names = tmp_path / "names.txt"
    names.write_text("x\ny\nz\n")
    options = ["--task", "segmentation", "--classes", str(names), "--reduce-zero-label"]
    assert main(["import", file, str(tmp_path / "in"), *options]) == 0
    assert f"next: ssl-swin predict {tmp_path}/in IMAGES OUT" in capsys.readouterr().out
    loaded = load_segmenter(tmp_path / "in")
    assert equal(loaded, segmenter) and loaded.classes == ("x", "y", "z")
    assert loaded.masks.reduce_zero_label
    assert main(["export", str(run), str(tmp_path / "t.safetensors"), "--to", "timm"]) == 0
    assert "note: timm has no segmenters, so the backbone is taken" in capsys.readouterr().out
    assert main(["import", file, str(tmp_path / "b"), "--img-size-px", "128"]) == 0
    load_backbone(tmp_path / "b")
    for wrong in (["--classes", str(names)], [*options[:2], "--num-classes", "3"]):
        assert main(["import", file, str(tmp_path / "no"), *wrong]) == 2
    assert not (tmp_path / "no").exists()
