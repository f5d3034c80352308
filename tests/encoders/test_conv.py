"""ResNet and ConvNeXt behind the face of an encoder, and SimMIM on them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from ssl_swin.encoders.build import build_encoder
from ssl_swin.encoders.conv import ConvEncoder
from ssl_swin.encoders.convnext import ConvNextEncoder, convnext
from ssl_swin.encoders.from_timm import encoder_of
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.encoders.resnet import ResNetEncoder, resnet
from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM
from ssl_swin.optim.param_groups import layer_decay_groups, weight_decay_groups
from ssl_swin.tasks.classification import Classification
from ssl_swin.weights.backbone import load_backbone, save_backbone, save_task
from ssl_swin.weights.formats.exporting import export_weights
from ssl_swin.weights.formats.importing import import_weights
from ssl_swin.weights.kept_head import keep_head
from ssl_swin.weights.sources import locate_backbone

BUILDERS: dict[str, tuple[Callable[..., ConvEncoder], dict[str, Any]]] = {
    "resnet": (
        resnet,
        {"img_size_px": 64, "depths": (2, 1, 1, 2), "channels": (8, 8, 8, 16)},
    ),
    "basic": (
        resnet,
        {"img_size_px": 64, "depths": (1, 2, 1, 1), "channels": (64, 8, 8, 8), "block": "basic"},
    ),
    "convnext": (
        convnext,
        {"img_size_px": 64, "depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32), "version": 1},
    ),
    "convnextv2": (
        convnext,
        {"img_size_px": 64, "depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32), "version": 2},
    ),
}
each_kind = pytest.mark.parametrize("kind", BUILDERS)


def built(kind: str, **changes: Any) -> ConvEncoder:
    """A small encoder of which no weight, and no statistic, is 0 or 1."""
    torch.manual_seed(0)
    build, arguments = BUILDERS[kind]
    encoder = build(**(arguments | changes))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for buffer in encoder.buffers():
            if buffer.is_floating_point():
                buffer.add_(0.1 * torch.rand_like(buffer))
    return encoder.eval()


def images_for(encoder: ConvEncoder, batch_size: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch_size, encoder.in_chans, *encoder.img_size_px, generator=generator)


def half_masked(encoder: ConvEncoder, batch_size: int = 2) -> Tensor:
    rows, columns = (side // encoder.stride for side in encoder.img_size_px)
    mask = torch.zeros(batch_size, rows, columns, dtype=torch.bool)
    mask[0, :, 0] = mask[1, 0] = True
    return mask


@each_kind
@pytest.mark.parametrize("changes", [{}, {"in_chans": 1}, {"img_size_px": (64, 96)}], ids=str)
def test_maps__are_those_of_timm(kind: str, changes: dict[str, Any]):
    encoder = built(kind, **changes)
    images = images_for(encoder)
    with torch.no_grad():
        tokens, stages, last = encoder.embed(images), encoder.stages(images), encoder(images)
        expected, intermediates = encoder.model.forward_intermediates(images)
        pooled = encoder.model(images)
    height, width = encoder.img_size_px
    assert tokens.shape == (2, height // 4, width // 4, encoder.embed_dim)
    assert [tuple(stage.shape) for stage in stages] == [
        (2, dim, height >> (2 + stage), width >> (2 + stage))
        for stage, dim in enumerate(encoder.stage_dims)
    ]
    assert encoder.stride == height // last.shape[2]
    for ours, theirs in zip(stages, intermediates[-len(stages) :], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoder.pool(last), pooled, rtol=1e-5, atol=1e-5)
    assert last.is_contiguous()
    assert last.equal(stages[-1])
    assert last.std() > 0.01


def leak(model: SimMIM, images: Tensor, mask: Tensor) -> float:
    """The largest gradient of the prediction by a masked pixel; by a visible one it is not 0."""
    images = images.clone().requires_grad_()
    prediction = model.reconstruct(images, mask).prediction
    (gradient,) = torch.autograd.grad(prediction.square().sum(), images)
    masked = expand_mask(mask, (images.shape[2], images.shape[3]))[:, None].expand_as(gradient)
    assert gradient[~masked].abs().max() > 0
    return float(gradient[masked].abs().max())


@each_kind
@pytest.mark.parametrize("training", [False, True])
def test_leak__no_prediction_depends_on_a_masked_pixel(kind: str, training: bool):
    encoder = built(kind)
    model = SimMIM(encoder).train(training)
    assert leak(model, images_for(encoder), half_masked(encoder)) == 0


def test_leak__a_resnet_sees_masked_pixels_unless_they_are_blank():
    encoder = built("resnet")
    model = SimMIM(encoder, blank_pixels=False).eval()
    assert leak(model, images_for(encoder), half_masked(encoder)) > 0
    assert SimMIM(encoder).blank_pixels
    assert not SimMIM(built("convnext")).blank_pixels


def test_blank_pixels__a_resnets_visible_tokens_see_a_fifth_of_the_masked_pixels():
    """The reference counts 20.7 % with patches of 2x2 units; here one cell in four is masked."""
    encoder = built("resnet", img_size_px=192, depths=(1, 1, 1, 1))
    images = images_for(encoder, 1).requires_grad_()
    mask = torch.zeros(1, 6, 6, dtype=torch.bool)
    mask[:, 2:4, 2:4] = True
    shown = expand_mask(~mask, (48, 48))[..., None]
    (gradient,) = torch.autograd.grad((encoder.embed(images) * shown).square().sum(), images)
    masked = expand_mask(mask, (192, 192))[0]
    seen = gradient[0].abs().sum(0)[masked] > 0
    assert 0.1 < seen.float().mean() < 0.3


@each_kind
@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_simmim__gradients_reach_every_weight(kind: str, grad_checkpointing: bool):
    encoder = built(kind, grad_checkpointing=grad_checkpointing)
    model = SimMIM(encoder).train()
    output = model.reconstruct(images_for(encoder), half_masked(encoder))
    assert output.prediction.shape == images_for(encoder).shape
    output.loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0, name
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == (
        ["encoder.model.head.norm.weight", "encoder.model.head.norm.bias"]
        if isinstance(encoder, ConvNextEncoder)
        else []
    )


@each_kind
def test_grad_checkpointing__same_gradients_and_statistics(kind: str):
    results = []
    for grad_checkpointing in (False, True):
        encoder = built(kind, grad_checkpointing=grad_checkpointing).train()
        encoder(images_for(encoder)).square().mean().backward()
        gradients = {n: p.grad for n, p in encoder.named_parameters() if p.requires_grad}
        results.append((gradients, dict(encoder.named_buffers())))
    (plain, statistics), (recomputed, kept) = results
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-4, atol=1e-6)
    for name, buffer in statistics.items():
        assert kept[name].equal(buffer), name
    assert all(module.training for module in encoder.modules())


@each_kind
def test_sparse__is_refused_by_name(kind: str):
    encoder = built(kind)
    message = rf"needs an encoder that can leave out masked patches, got a {encoder.title};"
    with pytest.raises(UserError, match=message):
        SparseSimMIM(encoder)


@each_kind
def test_layers__number_stem_blocks_and_head(kind: str):
    encoder = built(kind)
    ids = [encoder.layer_id(f"encoder.{name}") for name, _ in encoder.named_parameters()]
    assert sorted({*ids}) == [*range(sum(encoder.depths) + 1), encoder.last_layer][: max(ids) + 1]
    assert encoder.layer_id("mask_token") == 0
    assert encoder.layer_id("head.weight") == encoder.last_layer == sum(encoder.depths) + 1
    expected = {
        "resnet": {"conv1.weight": 0, "bn1.bias": 0, "layer1.1.conv1.weight": 2}
        | {"layer2.0.downsample.0.weight": 3, "layer4.1.bn2.weight": 6},
        "basic": {"layer2.1.conv2.weight": 3},
        "convnext": {"stem.0.weight": 0, "stages.1.downsample.1.weight": 1}
        | {"stages.1.blocks.0.gamma": 2, "stages.3.blocks.0.conv_dw.weight": 5}
        | {"head.norm.weight": 6},
        "convnextv2": {"stages.3.blocks.0.mlp.grn.weight": 5},
    }[kind]
    names = {name for name, _ in encoder.model.named_parameters()}
    assert names >= expected.keys()
    assert {name: encoder.layer_id(f"model.{name}") for name in expected} == expected


@each_kind
def test_weight_decay__spares_what_has_one_dimension(kind: str):
    model = SimMIM(built(kind))
    groups = weight_decay_groups(model, lr=1.0, weight_decay=0.05, policy="official")
    decayed, spared = (group["params"] for group in groups)
    assert all(parameter.ndim == 4 or parameter.ndim == 2 for parameter in decayed)
    assert {parameter.ndim for parameter in spared} == {1, 3}  # the mask token has three


@each_kind
def test_finetuning__trains_all_and_decays_by_layer(kind: str):
    task = Classification(built(kind), ["a", "b"])
    groups = layer_decay_groups(task, lr=1.0, layer_decay=0.5, weight_decay=0.05)
    grouped = sum(len(group["params"]) for group in groups)
    assert grouped == len(list(task.parameters()))
    rates = {group["lr"] for group in groups}
    assert {0.5**task.encoder.last_layer, 1.0} <= rates
    assert task.train().predict(images_for(task.encoder)).shape == (2, 2)


@each_kind
def test_build_encoder__rebuilds_from_what_a_file_says(kind: str):
    original = built(kind, img_size_px=(64, 96), in_chans=2)
    arguments = json.loads(json.dumps(original.model_args))
    rebuilt = build_encoder(
        original.architecture, arguments, drop_path_rate=0.25, grad_checkpointing=True
    )
    assert type(rebuilt) is type(original)
    assert rebuilt.model_args == original.model_args
    rebuilt.model.load_state_dict(original.model.state_dict())
    images = images_for(original)
    with torch.no_grad():
        assert rebuilt.eval()(images).equal(original(images))
    rates = [getattr(module, "drop_prob", 0.0) or 0.0 for module in rebuilt.modules()]
    assert max(rates) == pytest.approx(0.25)
    assert any(getattr(module, "grad_checkpointing", False) for module in rebuilt.model.modules())


@each_kind
def test_resized__takes_any_size_that_the_stride_divides(kind: str):
    encoder = built(kind)
    larger = resize_encoder(encoder, img_size_px=(96, 128))
    with torch.no_grad():
        assert larger.eval()(images_for(larger)).shape[2:] == (
            96 // encoder.stride,
            128 // encoder.stride,
        )
    for name, tensor in larger.model.state_dict().items():
        assert tensor.equal(encoder.model.state_dict()[name])
    with pytest.raises(UserError, match=r"side of 100 px does not divide into cells.*96, "):
        resize_encoder(encoder, img_size_px=100)
    with pytest.raises(UserError, match=f"window_size=7 is for a Swin; a {encoder.title} has none"):
        resize_encoder(encoder, window_size=7)


@each_kind
def test_backbone__goes_to_timm_and_back(kind: str, tmp_path: Path):
    encoder = built(kind, in_chans=2)
    save_backbone(tmp_path, encoder, mean=[0.5] * 2, std=[0.5] * 2, card="")
    loaded = load_backbone(tmp_path, img_size_px=96, drop_path_rate=0.1).encoder.eval()
    assert (type(loaded), loaded.img_size_px) == (type(encoder), (96, 96))
    assert load_backbone(tmp_path).encoder.img_size_px == (64, 64)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0).eval()
    assert {type(module).__module__.partition(".")[0] for module in model.modules()} == {
        "timm",
        "torch",
    }
    images = images_for(loaded)
    with torch.no_grad():
        expected = loaded.pool(loaded(images))
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert model.pretrained_cfg["input_size"] == (2, 64, 64)


@each_kind
def test_classifier__goes_to_timm_and_its_head_is_kept(kind: str, tmp_path: Path):
    task = Classification(built(kind), ["ant", "bee"]).eval()
    save_task(tmp_path, task, mean=[0.5] * 3, std=[0.5] * 3, card="")
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = images_for(task.encoder)
    with torch.no_grad():
        torch.testing.assert_close(model(images), task.predict(images), rtol=1e-5, atol=1e-5)
    encoder = load_backbone(tmp_path).encoder
    other = Classification(encoder, ["bee", "ant"])
    assert "the backbone's own, 2 classes" in keep_head(other, encoder, tmp_path)
    assert other.head.weight.equal(task.head.weight[[1, 0]])


@each_kind
def test_checkpoint__of_a_run_is_a_backbone(kind: str, tmp_path: Path):
    encoder = built(kind)
    model = nn.ModuleDict({"model": SimMIM(encoder)})
    facts = {
        "architecture": encoder.architecture,
        "model_args": encoder.model_args,
        "pretrained_cfg": {"mean": [0.4] * 3, "std": [0.3] * 3},
    }
    content = {"state_dict": model.state_dict(), "ssl_swin": facts, "global_step": 3}
    torch.save(content | {"pytorch-lightning_version": "2.6"}, tmp_path / "last.ckpt")
    located = locate_backbone(str(tmp_path / "last.ckpt"), tmp_path / "cache")
    loaded = load_backbone(located.folder)
    assert (loaded.mean, loaded.encoder.model_args) == ((0.4,) * 3, encoder.model_args)
    images = images_for(encoder)
    with torch.no_grad():
        assert loaded.encoder.eval()(images).equal(encoder(images))
    assert (located.folder / "simmim.safetensors").is_file()


TIMM = {
    "resnet18": {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)},
    "resnet50": {"layers": (1, 2, 1, 1), "channels": (8, 8, 16, 16)},
    "convnext_tiny": {"depths": (1, 1, 2, 1), "dims": (8, 8, 16, 16)},
    "convnextv2_tiny": {"depths": (1, 1, 2, 1), "dims": (8, 8, 16, 16)},
}


@pytest.mark.parametrize("architecture", TIMM)
def test_encoder_of__timms_own(architecture: str):
    model = timm.create_model(architecture, num_classes=5, **TIMM[architecture]).eval()
    encoder = encoder_of(model).eval()
    assert encoder.img_size_px == (224, 224)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        theirs = model.forward_head(model.forward_features(images), pre_logits=True)
        torch.testing.assert_close(encoder.pool(encoder(images)), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("resnet50d", {"layers": (1, 1, 1, 1)}),
        ("resnet18", {"act_layer": nn.SiLU}),
        ("convnext_tiny_hnf", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}),
        ("convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "norm_eps": 1.0}),
    ],
)
def test_encoder_of__refuses_other_variants(architecture: str, changes: dict[str, Any]):
    with pytest.raises(UserError, match=r"this variant of (ResNet|ConvNeXt) is unknown"):
        encoder_of(timm.create_model(architecture, **changes))


def test_export__a_resnet_is_torchvisions(tmp_path: Path):
    encoder = resnet(img_size_px=64, depths=(2, 2, 2, 2), block="basic").eval()
    assert isinstance(encoder, ResNetEncoder)
    save_backbone(tmp_path / "ours", encoder, mean=[0.5] * 3, std=[0.5] * 3, card="")
    export_weights(tmp_path / "ours", tmp_path / "theirs.pth", to="torchvision")
    model = torchvision.models.resnet18().eval()
    state = torch.load(tmp_path / "theirs.pth")
    absent, unexpected = model.load_state_dict(state, strict=False)
    assert (sorted(absent), unexpected) == (["fc.bias", "fc.weight"], [])
    model.fc = nn.Identity()
    images = images_for(encoder)
    with torch.no_grad():
        torch.testing.assert_close(model(images), encoder.pool(encoder(images)), rtol=0, atol=1e-5)
    imported, report = import_weights(tmp_path / "theirs.pth", img_size_px=96)
    assert imported.encoder.img_size_px == (96, 96)
    assert not report.dropped
    with pytest.raises(UserError, match="a ResNet cannot be written as 'swin'"):
        export_weights(tmp_path / "ours", tmp_path / "no.pth", to="swin")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("resnet", {"block": "wide"}, "block must be"),
        ("resnet", {"depths": (1, 1, 1)}, "depths must be a list"),
        ("convnext", {"dims": (8, 16, 24)}, "dims must be a list"),
        ("convnext", {"img_size_px": 80}, r"80 px does not divide.*64, 96 px"),
        ("convnext", {"version": 3}, "version must be a whole number in"),
    ],
)
def test_builders__refuse(kind: str, changes: dict[str, Any], message: str):
    build, arguments = BUILDERS[kind]
    with pytest.raises(UserError, match=message):
        build(**(arguments | changes))


def test_embed__refuses_images_of_another_size():
    with pytest.raises(UserError, match=r"takes images of 3 channels and 64x64 px, got \(3, 32"):
        built("convnext")(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(("size_px", "batch_size"), [(32, 2), ((64, 32), 1), (64, 1)])
def test_resnet__trains_on_the_smallest_batch_that_it_takes(size_px, batch_size: int) -> None:
    encoder = resnet(img_size_px=size_px, depths=(1, 1, 1, 1), channels=(8, 8, 8, 8)).train()
    encoder.check_batch_size(batch_size)
    encoder(torch.randn(batch_size, 3, *encoder.img_size_px)).sum().backward()


def test_resnet__refuses_a_batch_without_statistics() -> None:
    encoder = resnet(img_size_px=32, depths=(1, 1, 1, 1), channels=(8, 8, 8, 8)).train()
    with pytest.raises(UserError, match=r"batch_size=1 with images of 32x32 px .* batch_size=2"):
        encoder.check_batch_size(1)
    with pytest.raises(ValueError, match="more than 1 value"):
        encoder(torch.randn(1, 3, 32, 32))
