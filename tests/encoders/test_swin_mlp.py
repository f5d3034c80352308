"""Swin-MLP: the numbers of the original, read from `../shared/golden/objectives`."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from round_trips import (
    check_goes_to_timm_and_back,
    check_is_rebuilt_from_what_a_file_says,
    check_takes_the_originals_names,
    disturbed,
    images_for,
)
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.encoders.swin_mlp import SwinMlpEncoder, swin_mlp
from ssl_swin.errors import UserError
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM
from ssl_swin.tasks.classification import Classification, Classifier
from ssl_swin.weights.backbone import save_task
from ssl_swin.weights.formats.exporting import export_state, export_weights
from ssl_swin.weights.formats.importing import import_weights
from ssl_swin.weights.formats.official_mlp_format import SWIN_MLP

GOLDEN = Path(os.environ.get("SSL_SWIN_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
TINY: dict[str, Any] = {
    "img_size_px": 64,
    "window_size": 4,
    "embed_dim": 8,
    "depths": (2, 2, 2),
    "num_heads": (1, 2, 4),
}
PUBLISHED = {
    "swin_mlp_tiny_c24": "swin_mlp_t_c24",
    "swin_mlp_tiny_c12": "swin_mlp_t_c12",
    "swin_mlp_tiny_c6": "swin_mlp_t_c6",
    "swin_mlp_base": "swin_mlp_b",
}


def tiny_swin_mlp(**changes: Any) -> SwinMlpEncoder:
    return disturbed(swin_mlp, **(TINY | changes))


class Golden(NamedTuple):
    arrays: dict[str, np.ndarray]
    file: Path
    classifier: Classifier

    @property
    def images(self) -> Tensor:
        return torch.from_numpy(self.arrays["images"]).float()


@pytest.fixture(params=["w5", "w3"])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    """The original's weights, imported as a user imports its file."""
    source = GOLDEN / "objectives" / f"swin_mlp_{request.param}.npz"
    if not source.is_file():
        pytest.skip("../shared/golden/objectives is not here")
    arrays = dict(np.load(source))
    state = {
        name.removeprefix("param/"): torch.from_numpy(array).float()
        for name, array in arrays.items()
        if name.startswith("param/")
    }
    side = json.loads(str(arrays["config"]))["img_size"]
    config = {"MODEL": {"TYPE": "swin_mlp"}, "DATA": {"IMG_SIZE": side}}
    torch.save({"model": state, "config": config}, tmp_path / "original.pth")
    imported, report = import_weights(tmp_path / "original.pth", num_classes="any")
    assert imported.classifier is not None
    assert not report.dropped
    return Golden(arrays, tmp_path / "original.pth", imported.classifier.eval())


def near(actual: Tensor, expected: np.ndarray, atol: float) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(expected).float(), rtol=0, atol=atol)


def test_golden__tokens_logits_and_loss(golden: Golden):
    encoder = golden.classifier.encoder
    with torch.no_grad():
        features = encoder(golden.images)
        logits = golden.classifier(golden.images)
    near(features.flatten(2).transpose(1, 2), golden.arrays["tokens_normed"], 1e-5)
    near(logits, golden.arrays["logits"], 1e-5)
    loss = F.cross_entropy(logits, torch.from_numpy(golden.arrays["labels"]).long())
    assert loss.item() == pytest.approx(float(golden.arrays["loss"]), rel=1e-5)


def test_golden__the_map_of_every_stage(golden: Golden):
    """The original's are those after the merging, which begins a stage here."""
    encoder = golden.classifier.encoder
    with torch.no_grad():
        maps = encoder.stages(golden.images, final_norm=False)
    for number, (ours, stage) in enumerate(zip(maps, encoder.model.layers, strict=True)):
        stages = encoder.model.layers
        merged = ours.permute(0, 2, 3, 1)
        if number + 1 < len(stages):
            with torch.no_grad():
                merged = stages[number + 1].downsample(merged)
        assert stage is stages[number]
        near(merged.flatten(1, 2), golden.arrays[f"stage_out/{number}"], 1e-5)


def test_golden__every_gradient(golden: Golden):
    classifier = golden.classifier
    labels = torch.from_numpy(golden.arrays["labels"]).long()
    F.cross_entropy(classifier(golden.images), labels).backward()
    for parameter in classifier.parameters():
        assert parameter.grad is not None
        parameter.data = parameter.grad
    head = {f"head.fc.{n}": t for n, t in classifier.head.state_dict().items()}
    gradients, _ = export_state(classifier.encoder, head, SWIN_MLP)
    norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
    expected = {
        name.removeprefix("grad_norm/"): float(value)
        for name, value in golden.arrays.items()
        if name.startswith("grad_norm/")
    }
    assert norms == pytest.approx(expected, rel=1e-4)
    full = [name for name in golden.arrays if name.startswith("grad/")]
    assert len(full) == 2
    for name in full:
        near(gradients[name.removeprefix("grad/")], golden.arrays[name], 1e-6)


def published_model(name: str) -> tuple[SwinMlpEncoder, dict[str, Any]]:
    file = GOLDEN / "objectives" / "swin_mlp_full_sizes.json"
    if not file.is_file():
        pytest.skip("../shared/golden/objectives is not here")
    told = json.loads(file.read_text())[name]
    sizes = dict(told["config"])
    return swin_mlp(img_size_px=sizes.pop("img_size"), **sizes), told


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published__parameters_and_flops(name: str):
    encoder, told = published_model(name)
    model = Classifier(encoder, num_classes=1000).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == told["params"]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images_for(encoder, 1))
    # The original counts a product and its sum as one, and the norms besides.
    assert counter.get_total_flops() / 2 == pytest.approx(told["flops"], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published__layout_is_imported(name: str, tmp_path: Path):
    encoder, told = published_model(name)
    model = Classifier(encoder, num_classes=1000)
    folder = tmp_path / "ours"
    task = Classification(encoder, [str(number) for number in range(1000)])
    task.head.load_state_dict(model.head.state_dict())
    save_task(folder, task, mean=[0.5] * 3, std=[0.5] * 3, card="")
    report = export_weights(folder, tmp_path / "theirs.pth", to="swin")
    assert not report.dropped
    state = torch.load(tmp_path / "theirs.pth")["model"]
    if told["keys"] is not None:
        assert {name: list(tensor.shape) for name, tensor in state.items()} == told["keys"]
    torch.save({"model": state}, tmp_path / "published.pth")  # which say nothing of the image
    imported, report = import_weights(tmp_path / "published.pth", num_classes=1000)
    assert not report.dropped
    assert imported.encoder.model_args == encoder.model_args
    for name, tensor in imported.encoder.model.state_dict().items():
        assert tensor.equal(encoder.model.state_dict()[name])


def test_forward__equals_timms_own_way_through_the_blocks():
    for changes in (
        {},
        {"img_size_px": (64, 32)},
        {"img_size_px": (16, 64)},
        {"window_size": 5, "img_size_px": 80},
    ):
        encoder = tiny_swin_mlp(**changes)
        images = images_for(encoder)
        with torch.no_grad():
            expected = encoder.model.forward_features(images).permute(0, 3, 1, 2)
            torch.testing.assert_close(encoder(images), expected, rtol=0, atol=1e-5)


def test_forward__hooks_on_the_matrices_see_them_called():
    encoder = tiny_swin_mlp()
    images = images_for(encoder)
    with torch.no_grad():
        plain = encoder(images)
        calls = []
        block = encoder.blocks()[1]
        block.spatial_mlp.register_forward_hook(lambda *_: calls.append(1))
        torch.testing.assert_close(encoder(images), plain, rtol=0, atol=1e-5)
    assert len(calls) == 1


def test_shift__zeros_beyond_the_rims_reach_no_token():
    """Windows of 2x2 tokens on a map of 4x6, by hand."""
    encoder = tiny_swin_mlp(
        img_size_px=(16, 24), window_size=2, depths=(2,), num_heads=(1,), embed_dim=2
    )
    block = encoder.blocks()[1]
    matrix, bias = block.spatial_mlp.weight[..., 0], block.spatial_mlp.bias
    normed = torch.randn(1, 4, 6, 2)
    framed = torch.zeros(1, 6, 8, 2)
    framed[:, 1:5, 1:7] = normed
    expected = torch.zeros_like(framed)
    for row in (0, 2, 4):
        for column in (0, 2, 4, 6):
            window = framed[0, row : row + 2, column : column + 2].reshape(4, 2)
            mixed = matrix @ window + bias[:, None]
            expected[0, row : row + 2, column : column + 2] = mixed.view(2, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(block._attn(normed), expected[:, 1:5, 1:7])


@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_simmim__gradients_reach_every_weight(grad_checkpointing: bool):
    encoder = tiny_swin_mlp(grad_checkpointing=grad_checkpointing).train()
    model = SimMIM(encoder, mask_ratio=0.5)
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    model.reconstruct(images_for(encoder), mask).loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_sparse__is_refused_by_name():
    with pytest.raises(UserError, match=r"a Swin-MLP cannot leave out patches.*objective=simmim"):
        SparseSimMIM(tiny_swin_mlp())


def test_resized__keeps_the_windows_or_refuses():
    encoder = tiny_swin_mlp()
    larger = resize_encoder(encoder, img_size_px=128)
    assert larger(images_for(larger)).shape == (2, 32, 8, 8)
    for name, tensor in larger.model.state_dict().items():
        assert tensor.equal(encoder.model.state_dict()[name])
    small = tiny_swin_mlp(img_size_px=32, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
    with pytest.raises(UserError, match=r"windows would not be those of 32x32 px.*them: 32 px"):
        resize_encoder(small, img_size_px=64)
    with pytest.raises(UserError, match="window_size=8 is not the Swin-MLP's 4"):
        resize_encoder(encoder, window_size=8)
    with pytest.raises(UserError, match="side of 96 px does not divide"):
        resize_encoder(encoder, img_size_px=96)
    with pytest.raises(UserError, match="takes images of one size alone"):
        encoder.stages(images_for(encoder), any_size=True)


def test_layer_ids__are_those_of_a_swin():
    encoder = tiny_swin_mlp()
    assert encoder.layer_id("patch_embed.proj.weight") == 0
    assert encoder.layer_id("layers.1.blocks.1.spatial_mlp.weight") == 4
    assert encoder.layer_id("layers.1.downsample.norm.weight") == 2
    assert encoder.layer_id("head.weight") == encoder.last_layer == 7


def test_backbone__goes_to_timm_and_back(tmp_path: Path):
    encoder = tiny_swin_mlp(in_chans=2)
    model = check_goes_to_timm_and_back(encoder, tmp_path, "ssl_swin.encoders.swin_mlp")
    assert {type(module).__name__ for module in model.modules()} >= {"SpatialMlpBlock"}
    assert "head" not in "".join(load_file(tmp_path / "model.safetensors"))


def test_formats__import_export_and_what_has_no_place(tmp_path: Path):
    check_takes_the_originals_names(tiny_swin_mlp(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": (1, 2, 3)}, "stage 3 is 32 wide, which 3 heads do not divide"),
        ({"img_size_px": 72}, "side of 72 px does not divide"),
        ({"window_size": 0}, "window_size must be a whole number of at least 1"),
    ],
)
def test_swin_mlp__refuses(changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        swin_mlp(**(TINY | changes))


def test_build_encoder__rebuilds_from_what_a_file_says():
    rebuilt = check_is_rebuilt_from_what_a_file_says(
        tiny_swin_mlp(in_chans=1, img_size_px=(64, 128))
    )
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in rebuilt.blocks()]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2, 0.25])
