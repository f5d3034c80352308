"""MoBY: the original's numbers over three steps, queues, the target, and the two views."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_views import NO_COLORS, plain_views
from torch import Tensor

from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.sample import Sample
from ssl_swin.data.transforms import CentreCrop, RandomCrop
from ssl_swin.data.views import ColorViews, blurred
from ssl_swin.encoders.swin import swin
from ssl_swin.errors import UserError
from ssl_swin.objectives import view_batches
from ssl_swin.objectives.base import Progress
from ssl_swin.objectives.moby import MoBY
from ssl_swin.objectives.momentum import cosine_momentum
from ssl_swin.objectives.view_batches import ViewsBatch, ViewsExample, ViewsTransform, collate_views
from ssl_swin.optim.param_groups import weight_decay_groups

GOLDEN = (
    Path(os.environ.get("SSL_SWIN_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
    / "objectives"
)
ALL_COLORS = NO_COLORS | {
    "color_jitter": (0.4, 0.4, 0.2, 0.1),
    "grayscale_probability": 0.2,
    "blur_probability": (1.0, 0.1),
    "solarize_probability": (0.0, 0.2),
}
RGB = PixelFormat(3, "uint8")


def moby(**settings: Any) -> MoBY:
    torch.manual_seed(0)
    encoder = swin(version=1, img_size_px=32, window_size=4, embed_dim=8, depths=(1, 2),
                   num_heads=(1, 2))  # fmt: skip
    small = {"colors": plain_views(), "queue_length": 8, "hidden_dim": 32, "out_dim": 16}
    return MoBY(encoder, **(small | settings))


def as_is(pixels: Tensor) -> Tensor:
    return pixels.float()


def batch(size: int = 4, seed: int = 0) -> ViewsBatch:
    views = torch.randn(2, size, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return ViewsBatch(views[0], [views[1]], [str(number) for number in range(size)])


def original_name(name: str) -> str:
    """Ours by the names of the original."""
    for ours, theirs in (
        ("encoder.model.", "encoder."),
        ("target.model.", "encoder_k."),
        ("target_projectors.0.", "projector_k."),
        ("projectors.0.", "projector."),
        ("predictors.0.", "predictor."),
    ):
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
    parts = name.split(".")
    if "downsample" in parts:  # mergings belong to the stage before
        parts[2] = str(int(parts[2]) - 1)
    if parts[0] in ("projector", "projector_k", "predictor"):
        layer = {"0": "linear_hidden.1", "1": "linear_hidden.2", "3": "linear_out"}[parts[1]]
        parts[1:2] = [layer]
    return ".".join(parts)


def load_golden(objective: MoBY, arrays: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            given = torch.as_tensor(arrays[f"param/{original_name(name)}"])
            parameter.copy_(given.view_as(parameter))
        for ours, theirs in (("keys1", "queue1"), ("keys2", "queue2")):
            objective.get_buffer(ours)[0] = torch.as_tensor(arrays[f"buffer/{theirs}"]).t()


def test_golden__three_steps_of_the_original() -> None:
    path = GOLDEN / "moby.npz"
    if not path.is_file():
        pytest.skip(f"needs {path} (SSL_SWIN_GOLDEN)")
    arrays = dict(np.load(path))
    objective = moby()
    load_golden(objective, arrays)
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.05)
    for step in range(3):
        objective.before_step(Progress(step, num_steps=10, steps_per_epoch=10))
        objective.after_step(step)  # the target there follows at the start of a step
        assert objective.momentum_at(step / 10) == pytest.approx(
            float(arrays[f"step/{step}/momentum"]), abs=1e-12
        )
        views = [torch.as_tensor(arrays[f"step/{step}/view{view}"]).float() for view in (1, 2)]
        loss = objective.train()(ViewsBatch(views[0], [views[1]], ["x"] * 4), as_is).loss
        assert loss.item() == pytest.approx(
            float(arrays[f"step/{step}/loss"]), rel=1e-4 if step else 1e-5
        )
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            expected = {k.split("grad_norm/")[1] for k in arrays if k.startswith("step/0/grad")}
            for name, parameter in objective.named_parameters():
                if parameter.requires_grad:
                    norm = float(arrays[f"step/0/grad_norm/{original_name(name)}"])
                    # Biases before a batch normalisation have a gradient of rounding alone.
                    assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-5)
                    expected.remove(original_name(name))
            assert not expected
        optimizer.step()
        for ours, theirs in (("keys1", "queue1"), ("keys2", "queue2")):
            queue = arrays[f"step/{step}/{theirs}"].T
            np.testing.assert_allclose(objective.get_buffer(ours)[0], queue, atol=1e-4)
        assert int(objective.next_key) == int(arrays[f"step/{step}/queue_ptr"][0])
        if step in (0, 2):
            prefix = f"step/{step}/after/"
            for name, parameter in objective.named_parameters():
                if name.startswith("target"):
                    given = arrays[f"{prefix}param/{original_name(name)}"]
                    off = 1e-4 if step else 1e-6  # AdamW makes signs of gradients near zero
                    np.testing.assert_allclose(parameter.detach(), given, atol=off)
            for name, buffer in objective.named_buffers():
                # Later means follow biases of which only rounding decides, see above.
                if "running_var" in name or ("running_mean" in name and not step):
                    given = arrays[f"{prefix}buffer/{original_name(name)}"]
                    np.testing.assert_allclose(
                        buffer, given, rtol=1e-2 if step else 1e-5, atol=1e-6
                    )


def test_loss__of_the_start_is_that_of_chance() -> None:
    objective = moby(queue_length=4096, out_dim=256)
    assert objective(batch(), as_is).loss.item() == pytest.approx(2 * np.log(4097), abs=1.5)


@pytest.mark.parametrize(
    ("share", "momentum"), [(0, 0.99), (0.5, 0.995), (1, 1.0), (1 / 3, 0.9925)]
)
def test_momentum__rises_to_1_in_half_a_cosine(share: float, momentum: float) -> None:
    assert cosine_momentum(0.99, share) == pytest.approx(momentum, abs=1e-12)


def test_target__starts_as_a_copy_and_follows_only_after_a_step() -> None:
    objective = moby(momentum=0.9)
    assert_equal(objective.target, objective.encoder)
    assert_equal(objective.target_projectors, objective.projectors)
    objective.before_step(Progress(0, num_steps=4, steps_per_epoch=2))
    start = {name: p.clone() for name, p in objective.target.named_parameters()}
    with torch.no_grad():
        for parameter in objective.encoder.parameters():
            parameter += 1
    objective(batch(), as_is)
    assert all(start[name].equal(p) for name, p in objective.target.named_parameters())
    objective.after_step(2)  # of 4: 1 - 0.1 / 2
    for name, parameter in objective.target.named_parameters():
        torch.testing.assert_close(parameter, start[name] + 0.05)


def assert_equal(module: torch.nn.Module, other: torch.nn.Module) -> None:
    theirs = other.state_dict()
    assert all(value.equal(theirs[name]) for name, value in module.state_dict().items())


def test_target__is_never_trained() -> None:
    objective = moby()
    groups = weight_decay_groups(objective, lr=0.1, weight_decay=0.1, policy="official")
    trained = {id(p) for group in groups for p in group["params"]}
    own = [*objective.target.parameters(), *objective.target_projectors.parameters()]
    assert trained.isdisjoint(map(id, own)) and not objective.extra_weights()
    objective(batch(), as_is).loss.backward()
    assert all(p.grad is None for p in own)
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad)


def test_queue__holds_the_last_keys_and_wraps() -> None:
    objective = moby(queue_length=8).train()
    kept = []
    for number in range(3):  # of 4 keys
        views = batch(seed=number)
        keys = objective.keys1[0].clone()
        objective(views, as_is)
        place = 4 * number % 8
        kept.append(objective.keys1[0, place : place + 4].clone())
        keys[place : place + 4] = kept[-1]
        assert keys.equal(objective.keys1[0])
    assert objective.keys1[0].equal(torch.cat([kept[2], kept[1]])) and int(objective.next_key) == 4
    torch.testing.assert_close(objective.keys1[0].norm(dim=1), torch.ones(8))


def test_evaluation__changes_nothing() -> None:
    objective = moby().eval()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    metrics = objective.new_metrics()
    objective.evaluate(metrics, batch(), as_is)
    objective.evaluate(metrics, batch(size=1), as_is)
    assert metrics["loss"].compute().isfinite()
    assert all(value.equal(before[name]) for name, value in objective.state_dict().items())


def test_logs__tell_images_that_are_alike() -> None:
    objective = moby()
    views = batch()
    told = objective(views, as_is).logs
    alike = ViewsBatch(views.pixels[:1].expand(4, -1, -1, -1), views.others, views.names)
    assert objective(alike, as_is).logs["rep/std_mean"] < 1e-3 < told["rep/std_mean"]
    assert -1 <= told["positive_cosine"] <= 1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, 3), r"queue_length=8 is no multiple of the 3 images .* set objective.queue_length=6"),
        ((8, 16), r"8 is no multiple of the 16 images .* objective.queue_length=16"),
        ((1, 2), r"batch_size=1 has no batch statistics"),
    ],
)
def test_batches__that_it_cannot_take(sizes: tuple[int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        moby().check_batch_size(*sizes)
    moby().check_batch_size(2, 4)


@pytest.mark.parametrize(
    ("pixels", "words"), [(PixelFormat(5, "uint8"), "5 channels of uint8"),
                          (PixelFormat(3, "uint16"), "3 channels of uint16"),
                          (PixelFormat(1, "uint8"), "1 channel of uint8")]
)  # fmt: skip
def test_colors__of_images_that_have_none(pixels: PixelFormat, words: str) -> None:
    crop = CentreCrop((32, 32))
    every = moby(colors=ColorViews(**ALL_COLORS))
    with pytest.raises(UserError, match=words) as refusal:
        every.make_transform(crop, pixels, seed=0)
    assert str(refusal.value).endswith(
        "set objective.colors.color_jitter=null objective.colors.grayscale_probability=null "
        "objective.colors.solarize_probability=null"
    )
    blur = ColorViews(**NO_COLORS | {"blur_probability": (1.0, 0.1)})
    moby(colors=blur).make_transform(crop, pixels, seed=0)


def test_colors__need_a_probability_per_view() -> None:
    colors = ColorViews(**NO_COLORS | {"blur_probability": (1.0,)})
    with pytest.raises(UserError, match=r"objective\.colors\.blur_probability needs 2 numbers"):
        moby(colors=colors).make_transform(CentreCrop((32, 32)), RGB, seed=0)


class Encoded:
    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture
def noise_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(encoded: Encoded, pixels: PixelFormat) -> Sample:
        noise = np.random.default_rng(7).integers(0, 256, (3, 48, 48), np.uint8)
        return Sample(torch.as_tensor(noise))

    monkeypatch.setattr(view_batches, "decode_sample", decoded)


def views_of(name: str = "a", *, seed: int = 0, epoch: int = 0, **colors: Any) -> ViewsExample:
    crop = RandomCrop((32, 32), crop_scale=(0.2, 1.0), crop_aspect=(0.75, 1.33),
                      flip_probability=0.5)  # fmt: skip
    made = ColorViews(**(ALL_COLORS | colors))
    transform = ViewsTransform([crop] * 2, made, RGB, seed=seed)
    return transform(Encoded(name), epoch)


def test_views__are_functions_of_seed_epoch_name_and_view(noise_images: None) -> None:
    first, second = views_of().views
    assert all(a.equal(b) for a, b in zip(views_of().views, (first, second), strict=True))
    assert not first.equal(second)
    for other in (views_of("b"), views_of(seed=1), views_of(epoch=1)):
        assert not other.views[0].equal(first) and not other.views[1].equal(second)
    # Another rule of view 1 leaves view 2 as it is.
    assert views_of(blur_probability=(0.0, 0.1)).views[1].equal(second)
    plain = views_of(**{k: v for k, v in NO_COLORS.items() if k != "blur_radius_px"}).views[0]
    crop = RandomCrop((32, 32), crop_scale=(0.2, 1.0), crop_aspect=(0.75, 1.33),
                      flip_probability=0.5)  # fmt: skip
    noise = np.random.default_rng(7).integers(0, 256, (3, 48, 48), np.uint8)
    alone = crop.on_pixels(torch.as_tensor(noise), keyed_generator(0, 0, "a", "view 1"))
    assert plain.equal(alone)


def test_collate__keeps_views_apart() -> None:
    examples = [ViewsExample([torch.full((3, 2, 2), v + 10 * n) for v in (1, 2)], str(n))
                for n in range(2)]  # fmt: skip
    made = collate_views(examples)
    assert made.names == ["0", "1"] and len(made.others) == 1
    assert made.pixels[:, 0, 0, 0].tolist() == [1, 11]
    assert made.others[0][:, 0, 0, 0].tolist() == [2, 12]


def test_colors__each_step_alone() -> None:
    pixels = torch.as_tensor(np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8))
    draw = np.random.default_rng(0)
    one = {"solarize_probability": (1.0, 0.0)}
    expected = torch.where(pixels < 128, pixels, 255 - pixels)
    assert ColorViews(**NO_COLORS | one)(pixels, 0, draw).equal(expected)
    assert ColorViews(**NO_COLORS | one)(pixels, 1, draw).equal(pixels)
    gray = ColorViews(**NO_COLORS | {"grayscale_probability": 1.0})(pixels, 0, draw)
    assert gray[0].equal(gray[1]) and gray[1].equal(gray[2]) and gray.shape == pixels.shape
    jitter = {"color_jitter": (0.4, 0.4, 0.2, 0.1), "color_jitter_probability": 1.0}
    made = [ColorViews(**NO_COLORS | jitter)(pixels, 0, draw) for _ in range(2)]
    assert not made[0].equal(pixels) and not made[0].equal(made[1])
    assert made[0].dtype == torch.uint8


def test_blurred__of_a_point_is_a_gaussian_and_keeps_what_is_even() -> None:
    point = torch.zeros(1, 21, 21)
    point[0, 10, 10] = 1
    spread = blurred(point, 1.5)[0]
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    offsets = torch.arange(21.0) - 10
    assert (spread.sum(0) * offsets**2).sum().item() ** 0.5 == pytest.approx(1.5, rel=0.02)
    for dtype in (torch.uint8, torch.uint16):
        even = torch.full((2, 9, 9), 200, dtype=dtype)
        assert blurred(even, 2.0).dtype == dtype and blurred(even, 2.0).equal(even)


def test_hue__of_more_than_half_the_circle() -> None:
    with pytest.raises(UserError, match=r"a hue of at most 0\.5, got 0\.6"):
        ColorViews(**NO_COLORS | {"color_jitter": (0, 0, 0, 0.6)})


def test_queue__in_half_precision_is_compared_in_float32() -> None:
    objective = moby()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective(batch(), as_is).loss
    assert loss.dtype == objective.keys1.dtype == torch.float32
    assert F.normalize(objective.keys1, dim=-1).allclose(objective.keys1)
