import math

import pytest
import torch
from torch import Tensor

from ssl_swin.encoders.swin import swin
from ssl_swin.objectives.masked_images import MaskedBatch
from ssl_swin.objectives.psnr import MaskedPsnr, deviations
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.pixels import normalize

MEAN, STD = (0.2, 0.4, 0.6), (0.1, 0.2, 0.4)


def batch_of(pixels: Tensor) -> MaskedBatch:
    """Each image's upper left quarter is masked."""
    mask = torch.zeros(len(pixels), 2, 2, dtype=torch.bool)
    mask[:, 0, 0] = True
    return MaskedBatch(pixels, mask, torch.zeros(len(pixels)), ["x"] * len(pixels))


def test_psnr__by_hand():
    """Errors of 0.1 in one of four masked values: a mean square of 0.0025."""
    metric = MaskedPsnr()
    masked = torch.tensor([[[[True, True], [False, False]]]])
    error = torch.tensor([[[[0.1, 0.0], [9.0, 9.0]], [[0.0, 0.0], [9.0, 9.0]]]])
    metric.update(error, masked, torch.zeros(1, 2, 2, 2, dtype=torch.uint8))
    assert float(metric.compute()) == pytest.approx(10 * math.log10(1 / 0.0025), abs=1e-4)


def test_psnr__is_of_all_images_together_and_of_the_range_of_floats():
    metric = MaskedPsnr()
    everywhere = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    for error, value in ((3.0, -20.0), (1.0, 80.0)):
        at = torch.full((1, 1, 1, 1), value)
        metric.update(torch.full((1, 1, 1, 1), error), everywhere, at)
    assert float(metric.compute()) == pytest.approx(10 * math.log10(100**2 / 5), abs=1e-4)


def test_deviations__are_those_of_the_normalisation():
    found = deviations(lambda pixels: normalize(pixels, MEAN, STD), 3, torch.zeros(1))
    assert found.flatten().tolist() == pytest.approx(list(STD), rel=1e-5)


@pytest.mark.parametrize("window_px", [None, 3])
def test_val_psnr__is_measured_on_masked_pixels_before_normalisation(window_px):
    """A slow loop over what the figure shows as the prediction."""
    torch.manual_seed(0)
    encoder = swin(
        version=1, img_size_px=16, window_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2)
    )
    objective = SimMIM(encoder, mask_patch_size_px=8, normalize_target_window_px=window_px)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    batch = batch_of(pixels)
    metrics = objective.new_metrics()
    with torch.no_grad():
        objective.evaluate(metrics, batch, lambda raw: normalize(raw, MEAN, STD))
        pasted = objective.figure(batch, lambda raw: normalize(raw, MEAN, STD))[2].images
    squares = [
        (float(pasted[i, c, y, x]) * STD[c] + MEAN[c] - int(pixels[i, c, y, x]) / 255) ** 2
        for i in range(2)
        for c in range(3)
        for y in range(8)
        for x in range(8)
    ]
    expected = -10 * math.log10(sum(squares) / len(squares))
    assert float(metrics["psnr"].compute()) == pytest.approx(expected, abs=1e-3)
