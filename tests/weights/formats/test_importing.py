import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from official_names import to_simmim_name
from saved_backbones import MEAN, STD, saved
from test_safe_pickle import Planted

from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.errors import UserError
from ssl_swin.safe_pickle import load_checkpoint
from ssl_swin.weights.backbone import load_backbone
from ssl_swin.weights.formats.exporting import export_weights
from ssl_swin.weights.formats.importing import import_weights, save_import

GOLDEN = Path(os.environ.get("SSL_SWIN_GOLDEN", Path(__file__).parents[4] / "shared" / "golden"))


@pytest.fixture
def original(backbone: Path) -> Path:
    """A file of the original's SimMIM, tables and configuration included."""
    export_weights(backbone, backbone.parent / "ckpt.pth", to="simmim")
    return backbone.parent / "ckpt.pth"


def edit(path: Path, change: dict[str, Any] | None = None, *, without: str = "") -> Path:
    """Changes the tensors of a file."""
    content = torch.load(path, weights_only=True)
    state = content["model"] | (change or {})
    content["model"] = {n: t for n, t in state.items() if not without or without not in n}
    torch.save(content, path)
    return path


def test_import__reads_size_and_windows_off_the_file(original, encoder):
    imported, report = import_weights(original)
    assert imported.encoder.model_args == encoder.model_args
    reasons = {entry.reason for entry in report.dropped}
    assert reasons == {"rebuilt from the sizes, and found equal"}
    assert report.notes == ("nothing tells the normalisation: ImageNet's mean and std are assumed",)


def test_import__reads_the_size_off_the_masks_alone(original, encoder):
    state = torch.load(original, weights_only=True)["model"]
    torch.save(state, original)
    assert import_weights(original)[0].encoder.model_args == encoder.model_args


def test_import__reads_files_with_rpe_mlp(tiny_encoder, tmp_path):
    encoder = tiny_encoder(version=2)
    file = tmp_path / "ckpt.pth"
    export_weights(saved(encoder, tmp_path / "backbone"), file, to="simmim")
    state = torch.load(file, weights_only=True)["model"]
    released = {name.replace("cpb_mlp", "rpe_mlp"): tensor for name, tensor in state.items()}
    assert released.keys() != state.keys()
    torch.save({"model": released}, file)

    imported, report = import_weights(file)

    images = torch.randn(1, 3, 64, 64)
    assert imported.encoder.eval()(images).equal(encoder(images))
    assert "its name in the released SimMIM files" in {entry.reason for entry in report.renamed}


@pytest.mark.parametrize("name", ["swin_v1_w6", "swin_v2_w12"])
def test_import_and_export__of_the_originals_own_file(name, tmp_path):
    if not GOLDEN.is_dir():
        pytest.skip("../shared/golden is not here")
    source = GOLDEN / f"{name}.pth"
    original = load_checkpoint(source)["model"]
    imported, _ = import_weights(source)
    expected = {to_simmim_name(n): t for n, t in original.items() if to_simmim_name(n)}
    loaded = imported.simmim.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(t.equal(expected[n]) for n, t in loaded.items())
    save_import(tmp_path / "backbone", imported, card="")
    export_weights(tmp_path / "backbone", tmp_path / "again.pth", to="simmim")
    again = load_checkpoint(tmp_path / "again.pth")["model"]
    assert again.keys() == original.keys()
    for tensor_name, tensor in original.items():
        assert torch.allclose(again[tensor_name], tensor, rtol=0, atol=1e-6), tensor_name


def test_import__resizes_to_another_image(original, encoder):
    imported, report = import_weights(original, img_size_px=192)
    expected = resize_encoder(encoder, img_size_px=192)
    assert imported.encoder.img_size_px == (192, 192)
    images = torch.randn(1, 3, 192, 192)
    assert imported.encoder.eval()(images).equal(expected.eval()(images))
    assert len(report.resized) == sum(encoder.depths)
    assert all("192 px" in entry.reason for entry in report.resized)
    assert imported.simmim.encoder is imported.encoder


@pytest.mark.parametrize("to", ["swin", "torchvision", "huggingface"])
def test_import__drops_a_head_or_keeps_one_of_its_size(to, encoder, tmp_path):
    backbone = saved(encoder, tmp_path / "backbone", with_head=False)
    weights = backbone / "model.safetensors"
    head = {"head.fc.weight": torch.randn(7, 64), "head.fc.bias": torch.randn(7)}
    safetensors.torch.save_file(safetensors.torch.load_file(weights) | head, weights)
    export_weights(backbone, tmp_path / "out", to=to)

    dropped = import_weights(tmp_path / "out", img_size_px=128)[1].dropped
    assert "a head of 7 classes, which a backbone has not" in {entry.reason for entry in dropped}
    kept, _ = import_weights(tmp_path / "out", img_size_px=128, num_classes=7)
    assert kept.classifier.head.weight.equal(head["head.fc.weight"])
    with pytest.raises(UserError, match="a head of 7 classes, and one of 10 classes is to be kept"):
        import_weights(tmp_path / "out", img_size_px=128, num_classes=10)


def test_import__cannot_keep_a_head_that_is_not_there(original):
    with pytest.raises(UserError, match="no classification head, and one of 10"):
        import_weights(original, num_classes=10)


def test_save_import__writes_a_backbone_that_loads(original, encoder, tmp_path):
    imported, _ = import_weights(original, mean=MEAN, std=STD)
    save_import(tmp_path / "out", imported, card="card")
    loaded = load_backbone(tmp_path / "out")
    assert (loaded.mean, loaded.std) == (MEAN, STD)
    images = torch.randn(1, 3, 128, 128)
    assert loaded.encoder.eval()(images).equal(encoder(images))


def test_import__of_a_detector_takes_its_backbone(backbone, encoder, tmp_path):
    export_weights(backbone, tmp_path / "det.pth", to="detectron2")
    state = {
        f"backbone.bottom_up.{name}": tensor
        for name, tensor in torch.load(tmp_path / "det.pth", weights_only=True)["model"].items()
    }
    state["backbone.bottom_up.norm1.weight"] = torch.ones(16)
    state["backbone.fpn_lateral2.weight"] = torch.ones(1)
    torch.save({"model": state}, tmp_path / "det.pth")

    imported, report = import_weights(tmp_path / "det.pth", img_size_px=128)

    reasons = {entry.name: entry.reason for entry in report.dropped}
    assert "norm of an earlier stage" in reasons["backbone.bottom_up.norm1.weight"]
    assert "belongs to a larger model" in reasons["backbone.fpn_lateral2.weight"]
    images = torch.randn(1, 3, 128, 128)
    assert imported.encoder.eval()(images).equal(encoder(images))


def test_import__names_what_is_asked_for_and_what_it_is(original, tiny_encoder):
    other = tiny_encoder(img_size_px=128, embed_dim=16)
    with pytest.raises(UserError, match="embed_dim is 8, asked for 16"):
        import_weights(original, like=other)
    other = tiny_encoder(version=2)
    with pytest.raises(UserError, match=r"architecture is swin_tiny.*asked for swinv2_tiny"):
        import_weights(original, like=other)


def test_import__names_both_architectures_that_a_folder_holds(backbone, tmp_path):
    export_weights(backbone, tmp_path / "hf", to="huggingface")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | {"embed_dim": 96}))
    with pytest.raises(UserError, match=r"describes a Swin of embed_dim 96.*of embed_dim 8"):
        import_weights(tmp_path / "hf")


@pytest.mark.parametrize("to", ["timm", "torchvision", "detectron2"])
def test_import__asks_for_a_size_that_nothing_tells(to, backbone, tmp_path):
    out = tmp_path / "out.safetensors"
    export_weights(backbone, out, to=to)
    if to != "timm":
        out = out.rename(tmp_path / "out.pth")
    with pytest.raises(UserError, match=r"--img-size-px; 128 is usual for a window of 4"):
        import_weights(out)


def test_import__refuses_a_size_that_the_windows_contradict(tiny_encoder, tmp_path):
    file = tmp_path / "timm.safetensors"
    export_weights(saved(tiny_encoder(), tmp_path / "backbone"), file, to="timm")
    with pytest.raises(UserError, match=r"windows of 4, 4, 4, 2 tokens, but 128x128 px"):
        import_weights(file, img_size_px=128)


def test_import__asks_for_a_window_that_nothing_tells(tiny_encoder, tmp_path):
    file = tmp_path / "timm.safetensors"
    export_weights(saved(tiny_encoder(version=2), tmp_path / "backbone"), file, to="timm")
    with pytest.raises(UserError, match="nothing in it tells the attention window"):
        import_weights(file, img_size_px=64)


def test_import__asks_for_the_normalisation_of_other_channels(tiny_encoder, tmp_path):
    encoder = tiny_encoder(in_chans=5)
    export_weights(saved(encoder, tmp_path / "backbone"), tmp_path / "x.pth", to="simmim")
    with pytest.raises(UserError, match="5 channels: give a mean and a std for each"):
        import_weights(tmp_path / "x.pth")
    assert import_weights(tmp_path / "x.pth", mean=[0.5] * 5, std=[1.0] * 5)[0].mean == (0.5,) * 5


def test_import__wants_mean_and_std_together(original):
    with pytest.raises(UserError, match=r"give mean and std together"):
        import_weights(original, mean=MEAN)


@pytest.mark.parametrize("to", ["swin", "huggingface"])
def test_import__finds_the_windows_of_pretraining(to, tiny_encoder, tmp_path):
    encoder = tiny_encoder(version=2, pretrained_window_sizes=(8, 8, 8, 4))
    export_weights(saved(encoder, tmp_path / "backbone"), tmp_path / "out", to=to)
    imported, report = import_weights(tmp_path / "out")
    assert imported.encoder.model_args == encoder.model_args
    assert not any("position biases" in note for note in report.notes)


def test_import__finds_the_windows_of_pretraining_in_the_tables_alone(tiny_encoder, tmp_path):
    encoder = tiny_encoder(version=2, pretrained_window_sizes=(8, 8, 6, 5))
    file = tmp_path / "swin.pth"
    export_weights(saved(encoder, tmp_path / "backbone"), file, to="swin")
    torch.save(torch.load(file, weights_only=True)["model"], file)
    assert import_weights(file)[0].encoder.model_args == encoder.model_args


def test_import__says_that_it_assumes_the_windows_of_pretraining(tiny_encoder, tmp_path):
    encoder = tiny_encoder(version=2, pretrained_window_sizes=(8, 8, 8, 4))
    file = tmp_path / "timm.safetensors"
    export_weights(saved(encoder, tmp_path / "backbone"), file, to="timm")
    sizes = {"img_size_px": 64, "window_size": 4}
    assert "position biases" in import_weights(file, **sizes)[1].notes[1]
    told, report = import_weights(file, pretrained_window_sizes=(8, 8, 8, 4), **sizes)
    assert told.encoder.model_args == encoder.model_args
    assert len(report.notes) == 1
    with pytest.raises(UserError, match=r"\(8, 8\) are not one for each stage"):
        import_weights(file, pretrained_window_sizes=(8, 8), **sizes)


def test_import__refuses_another_format_than_named(original):
    with pytest.raises(UserError, match=r"not of the format 'timm': .* the original SimMIM"):
        import_weights(original, format_name="timm")
    with pytest.raises(UserError, match="no format 'caffe'; there are simmim"):
        import_weights(original, format_name="caffe")


def test_import__says_when_nothing_fits(tmp_path):
    torch.save({"conv1.weight": torch.ones(1), "fc.bias": torch.ones(1)}, tmp_path / "resnet.pth")
    with pytest.raises(
        UserError, match=r"resnet\.pth: not a Swin in any .* conv1\.weight, fc\.bias"
    ):
        import_weights(tmp_path / "resnet.pth")


@pytest.mark.parametrize("kept_ratio", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("to", ["simmim", "timm"])
def test_import__names_a_truncated_file(to, kept_ratio, backbone, tmp_path):
    file = tmp_path / ("cut.safetensors" if to == "timm" else "cut.pth")
    export_weights(backbone, file, to=to)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept_ratio)])
    with pytest.raises(UserError, match=rf"{file.name} is truncated, damaged"):
        import_weights(file)


def test_import__names_extra_tensors_of_a_safetensors_file(backbone, tmp_path):
    file = tmp_path / "timm.safetensors"
    export_weights(backbone, file, to="timm")
    state = safetensors.torch.load_file(file) | {"adapter.weight": torch.ones(2)}
    safetensors.torch.save_file(state, file)
    with pytest.raises(UserError, match=r"not those of timm; 1 unexpected: adapter\.weight"):
        import_weights(file, img_size_px=128)


def test_import__names_missing_tensors(original):
    edit(original, without="layers.2.blocks.1.norm1")
    with pytest.raises(UserError, match=r"2 missing: layers\.2\.blocks\.1\.norm1\.weight"):
        import_weights(original)


def test_import__names_half_a_split_tensor(backbone, tmp_path):
    export_weights(backbone, tmp_path / "hf", to="huggingface")
    file = tmp_path / "hf" / "model.safetensors"
    state = safetensors.torch.load_file(file)
    del state["swin.encoder.layers.0.blocks.0.attention.self.key.weight"]
    safetensors.torch.save_file(state, file)
    with pytest.raises(UserError, match=r"1 missing: encoder\.layers\.0.*self\.key\.weight"):
        import_weights(tmp_path / "hf")


def test_import__names_tensors_of_another_shape(original):
    edit(original, {"encoder.norm.weight": torch.ones(3)})
    expected = r"1 of the wrong shape: encoder\.norm\.weight \(3,\) instead of \(64,\)"
    with pytest.raises(UserError, match=expected):
        import_weights(original)


def test_import__refuses_tables_of_another_size(original):
    state = torch.load(original, weights_only=True)["model"]
    name = "encoder.layers.0.blocks.1.attn_mask"
    edit(original, {name: state[name] + 1})
    with pytest.raises(UserError, match=r"attn_mask is not that of a Swin Transformer V1 for 128"):
        import_weights(original)


def test_import__executes_nothing(tmp_path):
    marker = tmp_path / "executed"
    torch.save({"model": {"layers.0.x": torch.ones(1)}, "x": Planted(marker)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"'posix\.system'.*nothing was executed"):
        import_weights(tmp_path / "x.pth")
    assert not marker.exists()


def test_import__names_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*nowhere\.pth"):
        import_weights(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match=r"holds neither model\.safetensors nor pytorch_model\.bin"):
        import_weights(tmp_path)
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match=r"empty\.pth holds no dictionary of tensors"):
        import_weights(tmp_path / "empty.pth")
