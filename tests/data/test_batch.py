import pytest
import torch
from torch.utils.data import DataLoader

from ssl_swin.data.batch import LabeledSample, collate_labeled
from ssl_swin.objectives.masked_images import MaskedExample, collate_masked

PIXELS = torch.arange(3 * 12, dtype=torch.uint8).view(3, 3, 2, 2)
MASKS = torch.tensor([[[True, False]], [[False, True]], [[True, True]]])
SAMPLES = [
    MaskedExample(PIXELS[i], MASKS[i], label, f"{i}.jpg") for i, label in enumerate((4, -1, 0))
]


def test_collate_masked__stacks():
    batch = collate_masked(SAMPLES)
    assert batch.pixels.equal(PIXELS) and batch.pixels.dtype == torch.uint8
    assert batch.mask.equal(MASKS)
    assert batch.labels.equal(torch.tensor([4, -1, 0])) and batch.labels.dtype == torch.int64
    assert batch.names == ["0.jpg", "1.jpg", "2.jpg"]


def test_collate_masked__shared_mask_is_the_first_ones():
    batch = collate_masked(SAMPLES, shared_mask=True)
    assert batch.mask.tolist() == [[[True, False]]] * 3
    assert batch.pixels.equal(PIXELS)


def test_collate_labeled__stacks():
    batch = collate_labeled([LabeledSample(PIXELS[2], 7, "b"), LabeledSample(PIXELS[0], -1, "a")])
    assert batch.pixels.equal(PIXELS[[2, 0]])
    assert batch.labels.equal(torch.tensor([7, -1]))
    assert batch.names == ["b", "a"]


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
def test_collate__other_types_cross_to_the_training_process(dtype):
    pixels = (torch.arange(3 * 20) * 1000).to(dtype).view(3, 5, 2, 2)
    samples = [LabeledSample(image, 0, "x") for image in pixels]
    loader = DataLoader(samples, batch_size=3, num_workers=1, collate_fn=collate_labeled)
    (batch,) = loader
    assert batch.pixels.dtype == dtype and batch.pixels.equal(pixels)
