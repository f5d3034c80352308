import torch

from ssl_swin.data.batch import LabeledSample, MaskedSample, collate_labeled, collate_masked

PIXELS = torch.arange(3 * 12, dtype=torch.uint8).view(3, 3, 2, 2)
MASKS = torch.tensor([[[True, False]], [[False, True]], [[True, True]]])
SAMPLES = [MaskedSample(PIXELS[i], MASKS[i], label) for i, label in enumerate((4, -1, 0))]


def test_collate_masked__stacks():
    batch = collate_masked(SAMPLES)
    assert batch.pixels.equal(PIXELS) and batch.pixels.dtype == torch.uint8
    assert batch.mask.equal(MASKS)
    assert batch.labels.equal(torch.tensor([4, -1, 0])) and batch.labels.dtype == torch.int64


def test_collate_masked__shared_mask_is_the_first_ones():
    batch = collate_masked(SAMPLES, shared_mask=True)
    assert batch.mask.tolist() == [[[True, False]]] * 3
    assert batch.pixels.equal(PIXELS)


def test_collate_labeled__stacks():
    batch = collate_labeled([LabeledSample(PIXELS[2], 7), LabeledSample(PIXELS[0], -1)])
    assert batch.pixels.equal(PIXELS[[2, 0]])
    assert batch.labels.equal(torch.tensor([7, -1]))
