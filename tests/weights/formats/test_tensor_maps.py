import pytest
import torch

from ssl_swin.weights.formats import tensor_maps


@pytest.mark.parametrize(
    ("there", "back", "shapes"),
    [
        ("split_rows", "join_rows", [(6, 4)]),
        ("with_zero_key", "without_key", [(3,), (3,)]),
        ("flattened", "squared", [(4, 4)]),
        ("to_unfold_order", "from_unfold_order", [(5, 12)]),
        ("to_unfold_order", "from_unfold_order", [(12,)]),
    ],
)
def test_tensor_maps__are_inverses(there, back, shapes):
    tensors = tuple(torch.randn(shape) for shape in shapes)
    returned = getattr(tensor_maps, back)(getattr(tensor_maps, there)(tensors))
    assert len(returned) == len(tensors)
    assert all(a.equal(b) for a, b in zip(returned, tensors, strict=True))


def test_to_unfold_order__is_that_of_unfold():
    tokens = torch.randn(1, 6, 4, 3)  # NHWC
    corners = [tokens[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    ours = torch.cat(corners, dim=-1).flatten(1, 2)
    theirs = torch.nn.functional.unfold(tokens.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
    assert not ours.equal(theirs)
    assert tensor_maps.to_unfold_order((ours,))[0].equal(theirs)


def test_without_key__takes_query_and_value():
    query, value = tensor_maps.without_key((torch.arange(6),))
    assert (query.tolist(), value.tolist()) == ([0, 1], [4, 5])
    (bias,) = tensor_maps.with_zero_key((query, value))
    assert bias.tolist() == [0, 1, 0, 0, 4, 5]
