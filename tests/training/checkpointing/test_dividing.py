"""What one process alone can tell of writing in parts."""

import torch

from ssl_swin.training.checkpointing.dividing import bad_tensors


def test_bad_tensors__names_weights_and_moments_but_not_scores() -> None:
    bad = torch.tensor([1.0, torch.nan])
    checkpoint = {
        "state_dict": {"weight": bad, "bias": torch.ones(2)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.tensor([torch.inf])}}}],
        "callbacks": {"best": bad},
    }
    found = ["optimizer_states.0.state.0.exp_avg", "state_dict.weight"]
    assert bad_tensors(checkpoint) == found
    assert bad_tensors({"state_dict": {"bias": torch.ones(2)}}) == []
