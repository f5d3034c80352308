"""Local views: what iBOT's student sees besides, and who can look at them."""

from typing import Any

import numpy as np
import pytest
import torch
from plain_views import plain_views
from torch import Tensor

from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sample import Sample
from ssl_swin.data.transforms import CentreCrop, FinetuneAugmentation, RandomCrop
from ssl_swin.encoders.beit import beit
from ssl_swin.encoders.convnext import convnext
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resnet import resnet
from ssl_swin.encoders.swin import swin
from ssl_swin.encoders.swin_mlp import swin_mlp
from ssl_swin.errors import UserError
from ssl_swin.objectives import view_batches
from ssl_swin.objectives.ibot import IBOT
from ssl_swin.objectives.masked_views import MaskedViewsBatch, MaskedViewsExample
from ssl_swin.objectives.self_distillation import image_loss, region_loss

RGB = PixelFormat(3, "uint8")
SWIN = {"img_size_px": 64, "window_size": 4, "embed_dim": 8, "depths": (1, 2, 1),
        "num_heads": (1, 2, 2)}  # fmt: skip
CONV = {"img_size_px": 64, "depths": (1, 1, 1, 1)}
SPARSE = {"sparse": True, "mask_ratio": 0.6, "mask_probability": 1.0}
OF_ANY_SIZE: dict[str, Any] = {
    "swin v1": lambda: swin(version=1, **SWIN),
    "swin v2": lambda: swin(version=2, **SWIN),
    "resnet": lambda: resnet(channels=(8, 8, 8, 16), **CONV),
    "convnext": lambda: convnext(dims=(8, 16, 24, 32), version=1, **CONV),
}
OF_ONE_SIZE: dict[str, Any] = {
    "ViT": lambda: beit(img_size_px=64, patch_size_px=8, embed_dim=32, depth=2, num_heads=2),
    "Swin-MLP": lambda: swin_mlp(**SWIN),
}
NUM_LOCAL, SIDE_PX = 3, 40


def ibot(encoder: Encoder | None = None, **settings: Any) -> IBOT:
    torch.manual_seed(0)
    small = {"num_prototypes": 16, "hidden_dim": 32, "bottleneck_dim": 8}
    local = {"local_views": NUM_LOCAL, "local_size_px": SIDE_PX}
    made = OF_ANY_SIZE["swin v1"]() if encoder is None else encoder
    return IBOT(made, colors=plain_views(), **(small | local | settings))


def batch(objective: IBOT, size: int = 4) -> MaskedViewsBatch:
    noise, draw = torch.Generator().manual_seed(0), np.random.default_rng(0)
    examples = []
    for number in range(size):
        views = [torch.randn(3, 64, 64, generator=noise) for _ in range(2)]
        views += [torch.randn(3, SIDE_PX, SIDE_PX, generator=noise) for _ in range(NUM_LOCAL)]
        masks = [objective.mask_draw(draw) for _ in range(2)]
        examples.append(MaskedViewsExample(views, masks, str(number)))
    return objective.make_collate()(examples)


def as_is(pixels: Tensor) -> Tensor:
    return pixels


@pytest.mark.parametrize("settings", [{}, SPARSE])
def test_image_term__takes_local_views_as_further_views(settings: dict[str, Any]) -> None:
    objective = ibot(**settings).eval()
    given = batch(objective)
    with torch.no_grad():
        found = objective(given, as_is).logs["image_loss"]
        images = torch.cat([given.pixels, *given.others])
        seen = objective.student(objective.encoder, images, given)
        taught = objective.teacher(images, given.cells)
        scores = [*objective.head(seen.images).chunk(2)]
        for pixels in given.local:  # one at a time, by the map of the last stage
            last = objective.encoder.stages(pixels, any_size=True)[-1]
            scores.append(objective.head(last.mean((2, 3))))
        wanted = objective.teacher.image_targets(taught, 0.07).chunk(2)
    assert len(scores) == 5 and len(given.others) == 1
    torch.testing.assert_close(found, image_loss(scores, wanted, 0.1))
    assert not found.isclose(image_loss(scores[:2], wanted, 0.1), rtol=1e-4)


def test_region_term__takes_cells_of_local_views() -> None:
    objective = ibot(region_weight=1.0).eval()
    given = batch(objective)
    with torch.no_grad():
        found = objective(given, as_is).logs["region_loss"]
        images = torch.cat([given.pixels, *given.others])
        seen = objective.student(objective.encoder, images, given)
        taught = objective.teacher(images, given.cells)
        tokens = [*seen.tokens.chunk(2)]
        for pixels in given.local:
            last = objective.encoder.stages(pixels, any_size=True)[-1]
            tokens.append(last.flatten(2).transpose(1, 2))
        wanted = objective.teacher.all_cell_targets(taught, 0.07).chunk(2)
        scores = [objective.head(view) for view in tokens]
    assert [view.shape[1] for view in tokens] == [16, 16, 9, 9, 9]  # 40 px: 10, 5 and 3 tokens
    expected = region_loss(scores, tokens, wanted, taught.features.chunk(2), 0.1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", OF_ANY_SIZE)
def test_encoders_of_any_size__learn_from_local_views_alone(kind: str) -> None:
    objective = ibot(OF_ANY_SIZE[kind](), cell_weight=0.0).train()
    given = batch(objective)
    whole = objective(given, as_is).loss
    given.local[0].requires_grad_(True)
    objective(given, as_is).loss.backward()
    assert given.local[0].grad.any()
    assert not whole.isclose(objective(given._replace(local=()), as_is).loss, rtol=1e-5)


@pytest.mark.parametrize("kind", ["resnet", "convnext"])
def test_forward_any_size__of_the_own_size_is_the_forward_pass(kind: str) -> None:
    encoder = OF_ANY_SIZE[kind]().eval()
    images = torch.randn(2, 3, 64, 64)
    assert encoder.forward_any_size(images).equal(encoder(images))


@pytest.mark.parametrize("kind", OF_ONE_SIZE)
def test_encoders_of_one_size__are_refused_by_name(kind: str) -> None:
    with pytest.raises(UserError, match=f"local_views=3 .* a {kind}.* set objective.local_views=0"):
        ibot(OF_ONE_SIZE[kind]())
    ibot(OF_ONE_SIZE[kind](), local_views=0)
    with pytest.raises(UserError, match=r"of its own size alone, got \(40, 40\) px"):
        Encoder.forward_any_size(OF_ONE_SIZE[kind](), torch.zeros(1, 3, 40, 40))


@pytest.mark.parametrize("side_px", [3, 64, 96])
def test_sizes__between_a_patch_and_the_image(side_px: int) -> None:
    with pytest.raises(UserError, match=f"local_size_px={side_px} must be at least .* 64 px"):
        ibot(local_size_px=side_px)


class TestTransform:
    @pytest.fixture(autouse=True)
    def a_ramp(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of which a crop tells by its range how much of the height it shows."""
        ramp = torch.arange(200, dtype=torch.uint8)[None, :, None].expand(3, 200, 200)
        monkeypatch.setattr(view_batches, "decode_sample", lambda *_: Sample(ramp))

    def example(self, augmentation: Any = None, **settings: Any) -> MaskedViewsExample:
        crop = RandomCrop((64, 64), crop_scale=(0.5, 1.0), crop_aspect=(0.8, 1.25),
                          flip_probability=0.5)  # fmt: skip
        transform = ibot(**settings).make_transform(augmentation or crop, RGB, seed=0)
        return transform(type("Encoded", (), {"name": "a"})(), 0)

    def test_makes_small_views_of_details_without_masks(self) -> None:
        example = self.example(local_crop_scale=(0.04, 0.09))
        assert [tuple(view.shape[1:]) for view in example.views] == [(64, 64)] * 2 + [(40, 40)] * 3
        assert len(example.masks) == 2
        ranges = [int(view.max()) - int(view.min()) for view in example.views]
        assert all(shown > 120 for shown in ranges[:2])
        assert all(30 < shown < 70 for shown in ranges[2:])  # of 200 rows, 0.2 to 0.3 by 0.9 to 1.1
        assert not example.views[2].equal(example.views[3])

    def test_leaves_the_other_views_as_they_are(self) -> None:
        with_local, without = self.example(), self.example(local_views=0)
        assert len(without.views) == 2
        assert all(a.equal(b) for a, b in zip(with_local.views, without.views, strict=False))
        assert all(a.equal(b) for a, b in zip(with_local.masks, without.masks, strict=True))
        assert all(a.equal(b) for a, b in zip(self.example().views, with_local.views, strict=True))

    def test_of_evaluations_has_none(self) -> None:
        objective = ibot()
        example = self.example(CentreCrop((64, 64)))
        assert len(example.views) == 2
        assert not objective.make_collate()([example] * 2).local

    def test_refuses_an_augmentation_without_details(self) -> None:
        timms = FinetuneAugmentation((64, 64), mean=(0.5,) * 3, crop_scale=(0.1, 1.0),
                                     crop_aspect=(0.8, 1.25), flip_probability=0.5,
                                     auto_augment=None)  # fmt: skip
        with pytest.raises(UserError, match="FinetuneAugmentation makes no crops of details"):
            self.example(timms)
        assert len(self.example(timms, local_views=0).views) == 2


def test_describe__tells_local_views() -> None:
    assert "of the views, 3 local views of 40 px, 16 prototypes" in ibot().describe()
    assert "local" not in ibot(local_views=0).describe()


def test_preview__shows_a_local_view() -> None:
    objective = ibot().eval()
    titles = [column.title for column in objective.preview(batch(objective), as_is)]
    assert titles == ["view 1", "masked view 1", "view 2", "masked view 2", "local view"]
