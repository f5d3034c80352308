import math

import torch

from ssl_swin.probing.scoring import accuracy


def test_accuracy__by_hand():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert accuracy(scores, torch.tensor([1, 0, 0, 0])) == 75.0


def test_accuracy__what_is_not_finite_is_wrong():
    scores = torch.tensor([[math.nan, 0.0], [1.0, 0.0]])
    assert accuracy(scores, torch.tensor([0, 0])) == 50.0
