import copy
import math

import pytest
import torch
from torch import nn

from ssl_swin.errors import UserError
from ssl_swin.probing.lars import LARS


def parameter(values: list) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def step(optimizer: LARS, target: nn.Parameter, gradient: list) -> None:
    target.grad = torch.tensor(gradient, dtype=torch.float64)
    optimizer.step()


def test_lars__two_steps_of_a_matrix_by_hand():
    matrix = parameter([[3.0, 4.0]])
    optimizer = LARS([matrix], lr=10.0, momentum=0.5, trust_coefficient=0.01)

    # |p| = 5, |g| = 2: scaled by 0.01 * 5 / 2 = 0.025, so m = (0, 0.05) and p -= 10 m
    step(optimizer, matrix, [[0.0, 2.0]])
    torch.testing.assert_close(matrix.data, torch.tensor([[3.0, 3.5]], dtype=torch.float64))

    # |p|^2 = 9 + 12.25 and |g| = 1: m = 0.5 * (0, 0.05) + (0.01 |p|, 0)
    step(optimizer, matrix, [[1.0, 0.0]])
    expected = torch.tensor([[3.0 - 0.1 * math.sqrt(21.25), 3.25]], dtype=torch.float64)
    torch.testing.assert_close(matrix.data, expected)


def test_lars__weight_decay_enters_before_the_trust_ratio():
    matrix = parameter([[3.0, 4.0]])
    optimizer = LARS([matrix], lr=1.0, momentum=0.0, weight_decay=1.0, trust_coefficient=0.1)

    # g = (-3, 0) + (3, 4) = (0, 4), scaled by 0.1 * 5 / 4
    step(optimizer, matrix, [[-3.0, 0.0]])
    torch.testing.assert_close(matrix.data, torch.tensor([[3.0, 3.5]], dtype=torch.float64))


def test_lars__two_steps_of_a_vector_are_plain_momentum_without_decay():
    vector = parameter([3.0, 4.0])
    optimizer = LARS([vector], lr=0.1, momentum=0.5, weight_decay=7.0, trust_coefficient=0.01)

    step(optimizer, vector, [0.0, 2.0])  # m = (0, 2)
    torch.testing.assert_close(vector.data, torch.tensor([3.0, 3.8], dtype=torch.float64))
    step(optimizer, vector, [1.0, 0.0])  # m = (1, 1)
    torch.testing.assert_close(vector.data, torch.tensor([2.9, 3.7], dtype=torch.float64))


def test_lars__momentum_buffer_does_not_contain_the_learning_rate():
    matrix = parameter([[3.0, 4.0]])
    optimizer = LARS([matrix], lr=10.0, momentum=0.5, trust_coefficient=0.01)
    step(optimizer, matrix, [[0.0, 2.0]])
    optimizer.param_groups[0]["lr"] = 0.0

    step(optimizer, matrix, [[0.0, 0.0]])  # m = (0, 0.025), lr 0: nothing moves
    torch.testing.assert_close(matrix.data, torch.tensor([[3.0, 3.5]], dtype=torch.float64))
    optimizer.param_groups[0]["lr"] = 1.0
    step(optimizer, matrix, [[0.0, 0.0]])  # m = (0, 0.0125), lr 1
    torch.testing.assert_close(matrix.data, torch.tensor([[3.0, 3.4875]], dtype=torch.float64))


def test_lars__zero_norms_leave_the_gradient_unscaled():
    matrix = parameter([[0.0, 0.0]])
    optimizer = LARS([matrix], lr=0.5, momentum=0.0)
    step(optimizer, matrix, [[2.0, 0.0]])
    torch.testing.assert_close(matrix.data, torch.tensor([[-1.0, 0.0]], dtype=torch.float64))
    step(optimizer, matrix, [[0.0, 0.0]])
    torch.testing.assert_close(matrix.data, torch.tensor([[-1.0, 0.0]], dtype=torch.float64))


def test_lars__skips_parameters_without_a_gradient():
    used, unused = parameter([[3.0, 4.0]]), parameter([[1.0, 2.0]])
    optimizer = LARS([used, unused], lr=1.0)
    step(optimizer, used, [[1.0, 0.0]])
    assert unused.tolist() == [[1.0, 2.0]]
    assert used.tolist() != [[3.0, 4.0]]


def test_lars__closure_is_evaluated_with_gradients():
    matrix = parameter([[3.0, 4.0]])
    optimizer = LARS([matrix], lr=1.0, momentum=0.0, trust_coefficient=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = matrix.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 25.0
    torch.testing.assert_close(matrix.data, torch.tensor([[2.7, 3.6]], dtype=torch.float64))


def test_lars__state_dict_resumes_exactly():
    matrix = parameter([[3.0, 4.0]])
    optimizer = LARS([matrix], lr=1.0)
    step(optimizer, matrix, [[1.0, 2.0]])
    twin = parameter(matrix.tolist())
    resumed = LARS([twin], lr=99.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    step(optimizer, matrix, [[2.0, -1.0]])
    step(resumed, twin, [[2.0, -1.0]])
    assert twin.tolist() == matrix.tolist()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lr": -1.0}, r"lr >= 0, not -1\.0"),
        ({"lr": float("nan")}, "lr >= 0, not nan"),
        ({"momentum": 1.0}, r"momentum in \[0, 1\), not 1\.0"),
        ({"weight_decay": -0.1}, r"weight_decay >= 0, not -0\.1"),
        ({"trust_coefficient": 0.0}, r"trust_coefficient > 0, not 0\.0"),
    ],
)
def test_lars__rejects_settings_outside_their_range(setting, message):
    with pytest.raises(UserError, match=message):
        LARS([parameter([1.0])], **({"lr": 1.0} | setting))
