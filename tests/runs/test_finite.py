import math

import pytest
import torch

from ssl_swin.runs.finite import in_short, non_finite


def state(**parts: object) -> dict[str, object]:
    whole = {
        "state_dict": {"model.weight": torch.ones(2, 3), "model.index": torch.tensor([1, 2])},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3), "step": 4}}}],
        "callbacks": {"best": {"kth_value": torch.tensor(math.inf)}},  # as Lightning begins
        "global_step": 4,
    }
    return whole | parts


def test_non_finite__nothing_in_a_healthy_state():
    assert non_finite(state()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64])
def test_non_finite__one_number_in_the_weights(value, dtype):
    weight = torch.ones(2, 3, dtype=dtype)
    weight[1, 2] = value
    found = non_finite(state(state_dict={"a": torch.ones(1), "b": weight}))
    assert found == ["state_dict.b"]


def test_non_finite__optimiser_average_and_momentum_encoder():
    bad = torch.tensor([0.0, math.nan])
    found = non_finite(
        state(
            optimizer_states=[{"state": {0: {"exp_avg_sq": bad}}}],
            current_model_state={"model.weight": bad},
            teacher=(torch.ones(1), bad),
        )
    )
    assert found == [
        "optimizer_states.0.state.0.exp_avg_sq", "current_model_state.model.weight", "teacher.1"
    ]  # fmt: skip


def test_in_short():
    assert in_short(["a", "b"]) == "a, b"
    assert in_short(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
