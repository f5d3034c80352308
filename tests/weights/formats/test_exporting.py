from pathlib import Path

import pytest
import torch
from saved_backbones import SAME_WINDOWS, saved

from ssl_swin.encoders.beit import beit
from ssl_swin.errors import UserError
from ssl_swin.weights.formats.exporting import export_weights
from ssl_swin.weights.formats.importing import import_weights
from ssl_swin.weights.formats.known_formats import FORMATS, NAMES, recognise
from ssl_swin.weights.formats.weight_files import read_weights

SWIN_V1 = tuple(known.name for known in FORMATS if "Swin V1" in known.kinds)
SWIN_V2 = tuple(known.name for known in FORMATS if "Swin V2" in known.kinds)
CASES = [*((1, name) for name in SWIN_V1), *((2, name) for name in SWIN_V2)]


def exported(backbone: Path, to: str) -> Path:
    out = backbone.parent / ("out.safetensors" if to == "timm" else f"out_{to}")
    export_weights(backbone, out, to=to)
    return out


def equal_states(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "name"), CASES)
def test_round_trip__gives_back_every_bit(version, name, tiny_encoder, tmp_path):
    encoder = tiny_encoder(version=version, **SAME_WINDOWS)
    out = exported(saved(encoder, tmp_path / "backbone"), name)

    imported, report = import_weights(out, img_size_px=128, window_size=4)

    assert recognise(read_weights(out).state).name == name
    assert equal_states(imported.encoder.model, encoder.model)
    assert imported.encoder.model_args == encoder.model_args
    assert report.resized == ()
    assert all(entry.reason for entry in (*report.renamed, *report.dropped, *report.missing))


@pytest.mark.slow
@pytest.mark.parametrize(("version", "name"), CASES)
def test_second_export__gives_the_same_tensors(version, name, tiny_encoder, tmp_path):
    first = exported(
        saved(tiny_encoder(version=version, **SAME_WINDOWS), tmp_path / "a" / "x"), name
    )
    imported, _ = import_weights(first, img_size_px=128, window_size=4)
    second = exported(saved(imported.encoder, tmp_path / "b" / "x"), name)
    before, after = read_weights(first).state, read_weights(second).state
    assert before.keys() == after.keys()
    assert all(after[name].equal(before[name]) for name in before)


@pytest.mark.parametrize("name", ["simmim", "huggingface", "openmmlab"])
def test_export__takes_the_simmim_head_along(name, backbone, encoder):
    imported, _ = import_weights(exported(backbone, name), img_size_px=128)
    images, mask = torch.randn(1, 3, 128, 128), torch.rand(1, 4, 4) < 0.5
    again = saved(encoder, backbone.parent / "again")
    expected = import_weights(exported(again, "simmim"))[0].simmim
    with torch.no_grad():
        assert imported.simmim.reconstruct(images, mask).loss.equal(
            expected.reconstruct(images, mask).loss
        )
    assert imported.simmim.decoder[0].bias.abs().min() > 0


@pytest.mark.parametrize("name", ["swin", "timm", "torchvision", "detectron2"])
def test_export__says_that_it_leaves_the_simmim_head(name, backbone):
    report = export_weights(backbone, backbone.parent / "out", to=name)
    dropped = {entry.name for entry in report.dropped}
    assert dropped == {"mask_token", "decoder.0.weight", "decoder.0.bias"}


def test_export__of_a_vit_is_the_originals(tmp_path):
    encoder = beit(img_size_px=64, embed_dim=8, depth=2, num_heads=2)
    backbone = saved(encoder, tmp_path / "backbone")
    imported, _ = import_weights(exported(backbone, "simmim"))
    assert equal_states(imported.encoder.model, encoder.model)
    assert imported.simmim is not None
    assert equal_states(import_weights(exported(backbone, "timm"))[0].encoder.model, encoder.model)


def test_export__of_a_vit_without_final_norm(tmp_path):
    encoder = beit(img_size_px=64, embed_dim=8, depth=2, num_heads=2, final_norm=False)
    imported, report = import_weights(exported(saved(encoder, tmp_path / "backbone"), "simmim"))
    assert {entry.name for entry in report.missing} == {"fc_norm.weight", "fc_norm.bias"}
    assert imported.encoder.model_args == encoder.model_args


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("huggingface", {"img_size_px": 64}, "at 64x64 px stage 4 has 2"),
        ("torchvision", {"img_size_px": 64}, "windows of 4 tokens in every stage"),
        ("openmmlab", {"img_size_px": 64}, "stage 4 has 2"),
        ("detectron2", {"img_size_px": 64}, "stage 4 has 2"),
        ("huggingface", {"img_size_px": (128, 256)}, "128x256 px is not square"),
        ("torchvision", {"in_chans": 5}, "5 channels are not three"),
        ("detectron2", {"depths": (1, 1), "num_heads": (1, 2)}, "2 stages are not four"),
        ("openmmlab", {"version": 2}, "a Swin V2 cannot be written as 'openmmlab'"),
        ("detectron2", {"version": 2}, "which is for Swin V1"),
        (
            "torchvision",
            {"version": 2, "pretrained_window_sizes": (8, 8, 8, 4)},
            "cannot keep the windows of pretraining",
        ),
        ("tensorflow", {}, "no format 'tensorflow'; there are simmim, swin"),
    ],
)
def test_export__refuses_before_it_writes(name, changes, message, tiny_encoder, tmp_path):
    backbone = saved(tiny_encoder(**(SAME_WINDOWS | changes)), tmp_path / "backbone")
    with pytest.raises(UserError, match=message):
        export_weights(backbone, tmp_path / "out", to=name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"simmim", "timm"}))
def test_export__of_a_vit_is_refused_elsewhere(name, tmp_path):
    encoder = beit(img_size_px=64, embed_dim=8, depth=2, num_heads=2)
    with pytest.raises(UserError, match=f"a ViT cannot be written as '{name}'"):
        export_weights(saved(encoder, tmp_path / "backbone"), tmp_path / "out", to=name)


def test_export__of_simmim_needs_its_head(encoder, tmp_path):
    folder = saved(encoder, tmp_path / "backbone", with_head=False)
    with pytest.raises(UserError, match=r"no mask token and pixel head.*as 'swin'"):
        export_weights(folder, tmp_path / "out", to="simmim")


def test_export__warns_of_maps_that_are_one_window(backbone, tmp_path):
    report = export_weights(backbone, tmp_path / "out", to="detectron2")
    assert "at this image size stage 4 gives other values" in report.notes[0]
    assert list(report.lines())[-1].startswith("note: detectors")


def test_export__huggingface_v2_takes_smaller_maps(tiny_encoder, tmp_path):
    encoder = tiny_encoder(version=2)
    assert encoder.model_args["pretrained_window_sizes"] == (4, 4, 4, 2)
    imported, _ = import_weights(exported(saved(encoder, tmp_path / "backbone"), "huggingface"))
    assert imported.encoder.model_args == encoder.model_args
    assert equal_states(imported.encoder.model, encoder.model)
