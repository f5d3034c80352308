"""Both recipes learn drawn shapes: a square and a disc of their own colours."""

from functools import partial

import pytest
import torch

from ssl_swin.data.detect_samples import DetectSample, collate_detections
from ssl_swin.encoders.swin import swin
from ssl_swin.pixels import normalize
from ssl_swin.tasks.detecting import DetectInference
from ssl_swin.tasks.detection import Detection

NORMALIZE = partial(normalize, mean=[0.5] * 3, std=[0.25] * 3)
COLOURS = ((220, 40, 40), (40, 40, 230))
SIDE = 64


def drawn(number):
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(90, 120, (3, SIDE, SIDE), generator=generator).to(torch.uint8)
    y, x = torch.meshgrid(*[torch.arange(SIDE) + 0.5] * 2, indexing="ij")
    boxes, masks = [], []
    for label, first_column in enumerate((0, 32)):
        side = int(torch.randint(14, 30, (), generator=generator))
        left = first_column + int(torch.randint(0, 32 - side, (), generator=generator))
        top = int(torch.randint(0, SIDE - side, (), generator=generator))
        across, down = (x - left) / side - 0.5, (y - top) / side - 0.5
        inside = (
            (across.square() + down.square()).sqrt() if label else across.abs().maximum(down.abs())
        )
        mask = inside < 0.5
        pixels[:, mask] = torch.tensor(COLOURS[label], dtype=torch.uint8)[:, None]
        boxes.append([left, top, left + side, top + side])
        masks.append(mask)
    together = torch.stack(masks).to(torch.uint8)
    return DetectSample(
        pixels,
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor([0, 1]),
        together,
        torch.zeros(2, dtype=torch.bool),
        together.sum(dim=(1, 2)).float(),
        f"{number}",
    )


@pytest.mark.slow
@pytest.mark.parametrize("cascade", [False, True])
def test_detection__learns_drawn_shapes(cascade):
    torch.manual_seed(0)
    encoder = swin(
        version=1,
        img_size_px=128,
        window_size=4,
        embed_dim=16,
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 2, 4),
    )
    task = Detection(
        encoder,
        ["square", "disc"],
        cascade=cascade,
        with_masks=True,
        channels=32,
        head_channels=64,
        anchor_scale=4,
        anchor_ratios=[1.0],
        anchors_inside=cascade,
        num_proposals=50,
        proposal_loss="smooth_l1" if cascade else "l1",
        box_loss="giou" if cascade else "l1",
        inference=DetectInference(short_px=None),
    ).train()
    optimizer = torch.optim.AdamW(task.parameters(), 2e-3)
    losses = []
    for step in range(60):
        batch = collate_detections([drawn(4 * step + image) for image in range(4)])
        loss = task(batch, NORMALIZE).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    metrics = task.eval().new_metrics()
    task.evaluate(metrics, collate_detections([drawn(n) for n in range(1000, 1008)]), NORMALIZE)
    values = {name: metric.compute().item() for name, metric in metrics.items()}
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert values["map_50"] > 0.5 and values["mask_map_50"] > 0.4
