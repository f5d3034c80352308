"""Whole images, windows over them, several scales and mirrored: each by a slow reference."""

import pytest
import torch
from torch.nn import functional as F

from ssl_swin.data.segment_views import size_within
from ssl_swin.errors import UserError
from ssl_swin.tasks.segmenting import MULTI_SCALE, Inference, slide


def network(images):
    """Scores of stride 4, whose values depend on where in the image they are."""
    pooled = F.avg_pool2d(images, 4, ceil_mode=True)
    columns = torch.arange(pooled.shape[-1], dtype=pooled.dtype).expand_as(pooled[:, :1])
    return torch.cat([pooled, 0.1 * columns], dim=1)


def image(height, width):
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(height * width))


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((683, 512), (512, 2048), (683, 512)),
        ((300, 400), (512, 2048), (512, 683)),
        ((100, 1000), (512, 2048), (205, 2048)),
        ((1000, 100), (256, 1024), (1024, 102)),
        ((1, 5000), (512, 2048), (1, 2048)),
    ],
)
def test_size_within(size, limits, expected):
    assert size_within(size, *limits) == expected


def test_whole__upsamples_the_scores_to_the_size_seen_and_then_to_the_images():
    given = image(50, 75)
    inference = Inference(short_px=32, long_px=64)
    actual = inference.probabilities(network, given)
    seen = F.interpolate(given[None], (32, 48), mode="bilinear", antialias=True)
    scores = F.interpolate(network(seen), (32, 48), mode="bilinear")
    expected = F.interpolate(scores, (50, 75), mode="bilinear").softmax(1)[0]
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(actual.sum(0), torch.ones(50, 75))


def test_whole__keeps_the_size_where_none_is_asked_for():
    given = image(21, 30)
    actual = Inference(short_px=None).probabilities(network, given)
    expected = F.interpolate(network(given[None]), (21, 30), mode="bilinear").softmax(1)[0]
    torch.testing.assert_close(actual, expected)


def test_several_scales_and_flip__average_probabilities():
    given = image(40, 60)
    whole = Inference(short_px=40, long_px=400, ratios=[0.5, 1.75], flip=True)
    parts = []
    for size in ((20, 30), (70, 105)):
        seen = F.interpolate(given[None], size, mode="bilinear", antialias=True)
        for is_mirrored in (False, True):
            scores = network(seen.flip(-1) if is_mirrored else seen)
            scores = F.interpolate(scores, size, mode="bilinear")
            scores = scores.flip(-1) if is_mirrored else scores
            parts.append(F.interpolate(scores, (40, 60), mode="bilinear").softmax(1)[0])
    expected = torch.stack(parts).mean(0)
    torch.testing.assert_close(whole.probabilities(network, given), expected)


def test_flip__of_a_mirrored_image_is_the_mirrored_result():
    given = image(24, 36)
    inference = Inference(short_px=24, ratios=MULTI_SCALE, flip=True)
    mirrored = inference.probabilities(network, given.flip(-1))
    torch.testing.assert_close(mirrored, inference.probabilities(network, given).flip(-1))


@pytest.mark.parametrize(
    ("size", "window", "step", "tops", "lefts"),
    [
        ((50, 64), 32, 20, [0, 18], [0, 20, 32]),
        ((32, 33), 32, 32, [0], [0, 1]),
        ((20, 70), 32, 32, [0], [0, 32, 38]),
        ((9, 9), 32, 10, [0], [0]),
    ],
)
def test_slide__averages_windows_that_are_moved_inwards(size, window, step, tops, lefts):
    given = image(*size)[None]
    total, counts = torch.zeros(1, 4, *size), torch.zeros(1, 1, *size)
    for top in tops:
        for left in lefts:
            at = (..., slice(top, top + window), slice(left, left + window))
            part = given[at]
            total[at] += F.interpolate(network(part), part.shape[-2:], mode="bilinear")
            counts[at] += 1
    assert counts.min() == 1 or len(tops) * len(lefts) == 1
    actual = slide(network, given, window_px=window, step_px=step)
    torch.testing.assert_close(actual, total / counts)
    inference = Inference(mode="slide", short_px=None, window_px=window, step_px=step)
    expected = (total / counts).softmax(1)[0]
    torch.testing.assert_close(inference.probabilities(network, given[0]), expected)


def test_inference__refuses_gaps_and_what_is_no_scale():
    with pytest.raises(UserError, match="step_px=600 is more than window_px=512"):
        Inference(mode="slide", step_px=600)
    with pytest.raises(UserError, match="ratios must be"):
        Inference(ratios=[])
    with pytest.raises(UserError, match="ratios must be"):
        Inference(ratios=[0.5, 0.0])
    with pytest.raises(UserError, match="mode must be"):
        Inference(mode="tiles")
