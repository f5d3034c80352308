import json
import re

import pytest
import torch
from torch import Tensor

from ssl_swin.encoders.beit import beit
from ssl_swin.encoders.build import build_encoder
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.sizes import check_sizes, stage_window_sizes
from ssl_swin.encoders.swin import SwinEncoder, swin
from ssl_swin.errors import UserError

both_versions = pytest.mark.parametrize("version", [1, 2])


def images_for(encoder: SwinEncoder, batch_size: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch_size, encoder.in_chans, *encoder.img_size_px, generator=generator)


def blocks(encoder: SwinEncoder) -> list:
    return [block for stage in encoder.model.layers for block in stage.blocks]


@both_versions
@pytest.mark.parametrize(
    "changes",
    [
        {"in_chans": 1},
        {"in_chans": 3},
        {"in_chans": 5},
        {"img_size_px": (64, 128)},
        {"img_size_px": (32, 64)},  # the windows of the last stages are not square
        {"patch_size_px": 2, "depths": (1, 1, 2), "num_heads": (1, 2, 4)},
    ],
    ids=str,
)
def test_stages__halve_and_double_up_to_the_last_map(tiny_encoder, timm_twin, version, changes):
    encoder = tiny_encoder(version=version, **changes)
    images = images_for(encoder)
    with torch.no_grad():
        tokens, stages, last = encoder.embed(images), encoder.stages(images), encoder(images)
        reference = timm_twin(encoder).forward_features(images).permute(0, 3, 1, 2)

    height, width = (side // encoder.patch_size_px for side in encoder.img_size_px)
    num_stages = len(encoder.depths)
    assert tokens.shape == (2, height, width, 8)
    assert [tuple(stage.shape) for stage in stages] == [
        (2, 8 * 2**stage, height >> stage, width >> stage) for stage in range(num_stages)
    ]
    assert encoder.stage_dims == tuple(stage.shape[1] for stage in stages)
    assert encoder.num_features == last.shape[1]
    assert encoder.stride == encoder.img_size_px[0] // last.shape[2]
    assert last.is_contiguous()
    assert last.equal(encoder.encode(tokens))
    assert last.equal(stages[-1])
    torch.testing.assert_close(last, reference, rtol=0, atol=1e-5)
    assert last.std() > 0.01


@both_versions
def test_stages__earlier_maps_come_before_the_norm(tiny_encoder, timm_twin, version):
    encoder = tiny_encoder(version=version)
    images = images_for(encoder)
    with torch.no_grad():
        maps = encoder.stages(images)
        tokens = maps[-2].permute(0, 2, 3, 1)
        twin = timm_twin(encoder)
        expected = twin.norm(twin.layers[-1](tokens)).permute(0, 3, 1, 2)
    torch.testing.assert_close(maps[-1], expected, rtol=0, atol=1e-5)


@both_versions
def test_grad_checkpointing__gradients_are_equal(tiny_encoder, version):
    gradients = []
    for grad_checkpointing in (False, True):
        encoder = tiny_encoder(version=version, grad_checkpointing=grad_checkpointing).train()
        encoder(images_for(encoder)).square().mean().backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters()})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-6, atol=0)


@both_versions
def test_grad_checkpointing__recomputes_the_blocks(tiny_encoder, version):
    encoder = tiny_encoder(version=version, grad_checkpointing=True).train()
    calls = []
    blocks(encoder)[0].norm1.register_forward_pre_hook(lambda *_: calls.append("forward"))
    encoder(images_for(encoder)).sum().backward()
    assert len(calls) == 2


def test_drop_path__acts_in_training_alone(tiny_encoder):
    encoder = tiny_encoder(drop_path_rate=0.5)
    images = images_for(encoder)
    with torch.no_grad():
        steady = encoder(images)
        assert steady.equal(tiny_encoder(drop_path_rate=0.0)(images))
        encoder.train()
        torch.manual_seed(1)
        first = encoder(images)
        second = encoder(images)
        torch.manual_seed(1)
        again = encoder(images)
    assert first.equal(again)
    assert not first.equal(second)
    assert not first.equal(steady)


@both_versions
def test_drop_path__rises_linearly_over_the_blocks(tiny_encoder, version):
    encoder = tiny_encoder(version=version, drop_path_rate=0.5)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks(encoder)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


PUBLISHED_WINDOWS = [
    (192, 6, (6, 6, 6, 6)),
    (192, 12, (12, 12, 12, 6)),
    (224, 7, (7, 7, 7, 7)),
    (224, 14, (14, 14, 14, 7)),
]


@both_versions
@pytest.mark.parametrize(("side_px", "window_size", "expected"), PUBLISHED_WINDOWS)
def test_stage_window_sizes__are_those_of_the_published_models(
    tiny_encoder, version, side_px, window_size, expected
):
    assert stage_window_sizes((side_px, side_px), 4, window_size, num_stages=4) == expected
    depths = (1, 1, 1, 1)
    encoder = tiny_encoder(
        version=version, img_size_px=side_px, window_size=window_size, depths=depths
    )
    assert [block.window_size for block in blocks(encoder)] == [(side, side) for side in expected]


def test_v2__stores_the_windows_it_is_trained_with(tiny_encoder):
    encoder = tiny_encoder(version=2)
    assert encoder.model_args["pretrained_window_sizes"] == (4, 4, 4, 2)
    stored = [block.attn.pretrained_window_size for block in blocks(encoder)]
    assert stored == [(4, 4), (4, 4), (4, 4), (4, 4), (4, 4), (2, 2)]
    assert "pretrained_window_sizes" not in tiny_encoder(version=1).model_args


def test_v2__stored_windows_keep_the_position_bias_when_the_window_grows(
    tiny_encoder,
):
    small = tiny_encoder(version=2)
    stored = small.model_args["pretrained_window_sizes"]
    sizes = {"img_size_px": 128, "window_size": 8}
    large = tiny_encoder(version=2, **sizes, pretrained_window_sizes=stored)
    forgetful = tiny_encoder(version=2, **sizes)

    # Offsets of -3 to 3 tokens are the middle of the table that holds -7 to 7.
    tables = [blocks(e)[0].attn.relative_coords_table for e in (small, large, forgetful)]
    assert tables[0].equal(tables[1][:, 4:-4, 4:-4])
    assert not tables[0].equal(tables[2][:, 4:-4, 4:-4])


@pytest.mark.parametrize(
    ("side_px", "patch_size_px", "window_size", "num_stages"),
    [
        (100, 4, 4, 4),
        (200, 4, 7, 4),
        (190, 4, 6, 4),
        (94, 2, 5, 3),
        (3, 4, 8, 4),
        (224, 4, 6, 4),  # divides into patches and stages, but not into windows
        (72, 4, 24, 4),
    ],
)
def test_sizes__the_message_names_the_nearest_that_build_and_run(
    side_px, patch_size_px, window_size, num_stages
):
    def build(side: int) -> SwinEncoder:
        return swin(
            version=1,
            img_size_px=side,
            patch_size_px=patch_size_px,
            window_size=window_size,
            embed_dim=4,
            depths=[1] * num_stages,
            num_heads=[1] * num_stages,
        )

    def accepted(side: int) -> bool:
        try:
            check_sizes((side, side), patch_size_px, window_size, num_stages=num_stages)
        except UserError:
            return False
        return True

    with pytest.raises(UserError, match=f"image side of {side_px} px does not divide") as refusal:
        build(side_px)
    named = [int(side) for side in re.findall(r"\d+", str(refusal.value).partition("do: ")[2])]

    by_distance = sorted(filter(accepted, range(1, 1000)), key=lambda side: abs(side - side_px))
    assert len(named) >= 3
    assert named == sorted(by_distance[: len(named)])
    for side in named:
        encoder = build(side)
        assert encoder(images_for(encoder, 1)).shape[-1] == side // encoder.stride


def test_sizes__accepted_exactly_when_no_map_needs_padding():
    def needs_no_padding(side_px: int) -> bool:
        side = side_px / 4
        for stage in range(4):
            if side != int(side) or (side > 6 and side % 6):
                return False
            side = side / 2 if stage < 3 else side
        return True

    accepted = []
    for side_px in range(1, 800):
        try:
            check_sizes((side_px, side_px), 4, 6, num_stages=4)
        except UserError:
            continue
        accepted.append(side_px)
    assert accepted == [side_px for side_px in range(1, 800) if needs_no_padding(side_px)]
    assert 192 in accepted


def test_sizes__each_side_counts(tiny_encoder):
    with pytest.raises(UserError, match="image side of 100 px"):
        tiny_encoder(img_size_px=(64, 100))
    with pytest.raises(UserError, match="image side of 100 px"):
        tiny_encoder(img_size_px=(100, 64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, r"version must be a whole number in \[1, 2\], got 3"),
        ({"depths": (2, 2)}, r"depths \[2, 2\], num_heads \[1, 2, 2, 4\]"),
        (
            {"depths": (2, 0, 2, 2)},
            r"depths must be .* of at least 1, not empty, got \[2, 0",
        ),
        ({"depths": (), "num_heads": ()}, r"depths must be .*, not empty, got \[\]"),
        ({"num_heads": (1, 2, 3, 4)}, "stage 3 is 32 wide, which 3 heads do not divide"),
        ({"num_heads": (0, 1, 1, 1)}, "num_heads must be a list of whole numbers of at least 1"),
        ({"img_size_px": 0}, r"img_size_px must be a whole number in \[1, 16384\]"),
        ({"patch_size_px": 0}, "patch_size_px must be a whole number of at least 1"),
        ({"window_size": 0}, "window_size must be a whole number of at least 1, got 0"),
    ],
    ids=str,
)
def test_swin__refuses(tiny_encoder, changes, message):
    with pytest.raises(UserError, match=message):
        tiny_encoder(**changes)


@both_versions
def test_pool__is_the_mean_that_timm_takes(tiny_encoder, version):
    encoder = tiny_encoder(version=version, img_size_px=(64, 128))
    images = images_for(encoder)
    with torch.no_grad():
        features = encoder(images)
        assert encoder.pool(features).equal(features.mean(dim=(2, 3)))
        torch.testing.assert_close(encoder.pool(features), encoder.model(images))


VIT = {"img_size_px": (32, 64), "embed_dim": 8, "depth": 3, "num_heads": 2, "in_chans": 5}


def encoders(tiny_encoder) -> list[Encoder]:
    return [
        tiny_encoder(version=1, in_chans=2),
        tiny_encoder(version=2, img_size_px=(32, 64), pretrained_window_sizes=(4, 4, (2, 4), 2)),
        beit(**VIT),
        beit(**VIT, final_norm=False),
        beit(**VIT).for_finetuning(),
    ]


@pytest.mark.parametrize("index", range(5))
def test_build_encoder__rebuilds_from_what_a_file_says(tiny_encoder, index):
    original = encoders(tiny_encoder)[index].eval()
    arguments = json.loads(json.dumps(original.model_args))
    rebuilt = build_encoder(
        original.architecture, arguments, drop_path_rate=0.25, grad_checkpointing=True
    ).eval()
    assert type(rebuilt) is type(original)
    assert rebuilt.model_args == original.model_args
    rebuilt.model.load_state_dict(original.model.state_dict())
    images = images_for(original)
    with torch.no_grad():
        assert rebuilt(images).equal(original(images))
    modules = list(rebuilt.model.modules())
    assert max(getattr(module, "drop_prob", 0.0) for module in modules) == pytest.approx(0.25)
    assert any(getattr(module, "grad_checkpointing", False) for module in modules)


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("vit_base_patch16_224", {}, "'vit_base_patch16_224' is unknown here; known: swin_tiny"),
        ("beit_base_patch16_224", {"embed_dim": ...}, "beit_base_patch16_224 lack 'embed_dim'"),
        ("beit_base_patch16_224", {"swiglu_mlp": True}, "swiglu_mlp=None here, not True"),
        ("beit_base_patch16_224", {"use_rel_pos_bias": True}, "use_rel_pos_bias=False here"),
        ("beit_base_patch16_224", {"num_heads": 3}, "3 heads do not divide a width of 8"),
    ],
)
def test_build_encoder__refuses(architecture, changes, message):
    arguments = {n: v for n, v in (beit(**VIT).model_args | changes).items() if v is not ...}
    with pytest.raises(UserError, match=message):
        build_encoder(architecture, arguments)


def test_build_encoder__refuses_what_a_swin_is_not(tiny_encoder):
    encoder = tiny_encoder()
    with pytest.raises(UserError, match="strict_img_size=None here, not False"):
        build_encoder(encoder.architecture, encoder.model_args | {"strict_img_size": False})
    with pytest.raises(UserError, match="lack 'window_size'"):
        build_encoder(encoder.architecture, {"img_size": 64, "patch_size": 4, "in_chans": 3})
