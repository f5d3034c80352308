"""AdamW's implementations make the same steps, also of a run that another one has begun."""

import copy
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import AdamW

from ssl_swin.training import implementation
from ssl_swin.training.implementation import implement
from ssl_swin.training.module import TrainingModule

GROUPS = ((0.05, (3, 4)), (0.0, (5,)))


def made(kernel: Any) -> AdamW:
    """An AdamW of two groups in double precision, as recipes make it, with an implementation."""
    torch.manual_seed(0)
    groups = [
        {"params": [torch.nn.Parameter(torch.randn(shape, dtype=torch.double))], "weight_decay": w}
        for w, shape in GROUPS
    ]
    optimizer = AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-7, fused=True)
    implement(optimizer, kernel)
    return optimizer


def parameters(optimizer: AdamW) -> list[torch.Tensor]:
    return [each for group in optimizer.param_groups for each in group["params"]]


def train(optimizer: AdamW, first: int, last: int) -> None:
    for step in range(first, last):
        draw = torch.Generator().manual_seed(step)
        for each in parameters(optimizer):
            each.grad = torch.randn(each.shape, generator=draw, dtype=each.dtype)
        optimizer.step()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the implementations that have made steps of a group."""
    seen: list[str] = []
    adam = importlib.import_module("torch.optim.adam")
    for name in ("fused", "multi_tensor", "single_tensor"):
        function = getattr(adam, f"_{name}_adam")

        def watched(*args: Any, name: str = name, function: Any = function, **rest: Any) -> Any:
            seen.append(name)
            return function(*args, **rest)

        monkeypatch.setattr(adam, f"_{name}_adam", watched)
    return seen


def test_implement__steps_are_equal_and_made_as_chosen(steps: list[str]):
    fused, foreach = made("fused"), made("foreach")
    train(fused, 0, 5)
    assert steps == ["fused"] * 10
    train(foreach, 0, 5)
    assert steps[10:] == ["multi_tensor"] * 10
    torch.testing.assert_close(parameters(foreach), parameters(fused), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kernels", [("fused", "foreach"), ("foreach", "fused")])
def test_implement__goes_on_with_another(steps: list[str], tmp_path: Path, kernels: Any):
    first, second = map(made, kernels)
    train(first, 0, 3)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    with torch.no_grad():
        for new, old in zip(parameters(second), parameters(first), strict=True):
            new.copy_(old)
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    steps.clear()
    train(second, 3, 5)
    assert set(steps) == {"fused" if kernels[1] == "fused" else "multi_tensor"}
    whole = made("fused")
    train(whole, 0, 5)
    torch.testing.assert_close(parameters(second), parameters(whole), rtol=1e-12, atol=0)


@pytest.mark.parametrize("asked", [True, None])
def test_training_module__leaves_an_adamw_that_is_not_fused_as_its_recipe_made_it(
    monkeypatch: pytest.MonkeyPatch, asked: Any
):
    optimizer = AdamW([torch.nn.Parameter(torch.zeros(3))], fused=asked)
    module: Any = SimpleNamespace(
        optimizer=lambda *_, **__: optimizer, model=None, schedule=None, adamw_kernel="foreach"
    )
    monkeypatch.setattr("ssl_swin.training.module.run_length", lambda *_, **__: None)
    data: Any = SimpleNamespace(num_train_batches=lambda: 1, batch_size=1)
    TrainingModule.optimizer_for(module, None, data)  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["foreach"] is (True if asked else None)


@pytest.mark.parametrize(("kernel", "place"), [("fused", "cuda"), ("foreach", "cpu")])
def test_set__counts_steps_where_they_are_read(kernel: Any, place: str):
    """A count on a GPU that is read by the host would be waited for, once for each parameter."""
    optimizer = copy.deepcopy(made(kernel))
    with FakeTensorMode(allow_non_fake_inputs=True):
        parameter = torch.nn.Parameter(torch.zeros(3, device="cuda"))
        optimizer.param_groups[0]["params"] = [parameter]
        for device in ("cpu", "cuda"):
            optimizer.state[parameter] = {"step": torch.zeros((), device=device)}
            implementation._set(optimizer, kernel)
            assert optimizer.state[parameter]["step"].device.type == place
