import pytest
import torch

from ssl_swin.encoders.windows.layout import (
    MovedWindows,
    PaddedOrder,
    Permutation,
    SameOrder,
    WholeImages,
    WholeWindows,
)

INDEX = torch.tensor([2, 0, 3, 1])
PADDED = torch.tensor([2, 4, 0, 3, 4, 1])  # 4 is no token


def test_orders__by_hand():
    tokens = torch.tensor([10.0, 11.0, 12.0, 13.0]).view(1, 4, 1)
    assert SameOrder().apply(tokens) is SameOrder().undo(tokens) is tokens
    assert Permutation.of(INDEX).apply(tokens).flatten().tolist() == [12, 10, 13, 11]
    padded = PaddedOrder.of(PADDED, 4).apply(tokens)
    assert padded.flatten().tolist() == [12, 0, 10, 13, 0, 11]


@pytest.mark.parametrize("order", [Permutation.of(INDEX), PaddedOrder.of(PADDED, 4)])
def test_orders__undo_and_gradients(order):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 4, 3, dtype=torch.double, generator=generator, requires_grad=True)
    assert order.undo(order.apply(tokens)).equal(tokens)
    slots = torch.randn(
        2, len(order.index), 3, dtype=torch.double, generator=generator, requires_grad=True
    )
    assert torch.autograd.gradcheck(order.apply, tokens)
    assert torch.autograd.gradcheck(order.undo, slots)


def test_window_layouts__gather_and_scatter_undo_each_other():
    tokens = torch.arange(2 * 4 * 3.0).view(2, 4, 3)
    for layout, shape in (
        (WholeWindows(2), (2, 2, 2, 3)),
        (MovedWindows(Permutation.of(INDEX), torch.zeros(1, 1, 2, 2)), (2, 2, 2, 3)),
        (MovedWindows(PaddedOrder.of(PADDED, 4), torch.zeros(1, 1, 3, 3)), (2, 2, 3, 3)),
        (WholeImages(torch.ones(1, 4, 4)), (2, 1, 4, 3)),
        (WholeImages(torch.ones(2, 4, 4)), (1, 2, 4, 3)),
    ):
        groups = layout.gather(tokens)
        assert groups.shape == shape
        assert layout.scatter(groups, tokens).equal(tokens)


def test_window_layouts__bias_by_hand():
    window = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])  # (query, head, key)
    assert WholeWindows(2).bias(window).tolist() == [[[[1.0, 2.0], [3.0, 4.0]]]]
    apart = torch.tensor([[0.0, -100.0], [-100.0, 0.0]]).view(1, 1, 2, 2)
    moved = MovedWindows(Permutation.of(INDEX), apart)
    assert moved.bias(window).tolist() == [[[[1.0, -98.0], [-97.0, 4.0]]]]
    last_first = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    assert WholeImages(last_first).bias(window).tolist() == [[[[4.0, 3.0], [2.0, 1.0]]]]
