"""`trainer.precision=bf16-true`: the numbers of bf16-mixed, with half the weights' gradients."""

import copy
import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from torch import nn

import ssl_swin
from ssl_swin.errors import UserError
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.training.half_weights import (
    HalfWeights,
    follow_masters,
    halve,
    master_of,
    step_masters,
    with_gradients,
)
from ssl_swin.training.trainer import Trainer

ADAMW = partial(torch.optim.AdamW, betas=(0.9, 0.999), weight_decay=0.0)
PRECISIONS: dict[str, Any] = {  # as `ssl_swin.Trainer` asks Lightning for them
    "bf16-mixed": {"precision": "bf16-mixed"},
    "bf16-true": {"plugins": [HalfWeights("cpu")]},
}


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.Linear(64, 4))


def share_unchanged(before: torch.Tensor, after: torch.Tensor) -> float:
    return (before == after).double().mean().item()


@pytest.mark.parametrize(
    ("lr", "lost"), [(4e-4, (0, 0.02)), (1e-4, (0.08, 0.2)), (1e-5, (0.8, 0.9))]
)
def test_masters__take_updates_that_bfloat16_alone_loses(
    lr: float, lost: tuple[float, float]
) -> None:
    """Of weights N(0, 0.02), a first AdamW step, which is of size lr."""
    torch.manual_seed(0)
    weight = torch.randn(384, 384) * 0.02
    gradient = torch.randn(384, 384)
    alone = nn.Parameter(weight.bfloat16())
    alone.grad = gradient.bfloat16()
    ADAMW([alone], lr=lr).step()
    assert lost[0] <= share_unchanged(alone.detach(), weight.bfloat16()) <= lost[1]

    layer = nn.Linear(384, 384, bias=False)
    layer.weight.data.copy_(weight)
    halve(layer)
    optimizer = ADAMW(layer.parameters(), lr=lr)
    step_masters(optimizer)
    layer.weight.grad = gradient.bfloat16()
    (master,) = with_gradients(layer.parameters())
    optimizer.step()
    assert share_unchanged(master.detach(), weight) == 0
    follow_masters(layer.parameters())
    assert layer.weight.equal(master.bfloat16()) and layer.weight.grad is None


def test_halve__matrices_alone_and_state_dicts_show_masters() -> None:
    model = layers()
    model[2].requires_grad_(False)  # as a teacher
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    halve(model)
    halve(model)
    assert {name: p.dtype for name, p in model.named_parameters()} == {
        "0.weight": torch.bfloat16,
        **dict.fromkeys(("0.bias", "1.weight", "1.bias", "2.weight", "2.bias"), torch.float32),
    }
    state = model.state_dict()
    assert all(state[name].equal(tensor) for name, tensor in before.items())
    assert not model[0].weight.float().equal(before["0.weight"])
    other = layers()
    with torch.no_grad():
        other[0].weight.add_(1e-4)
    model.load_state_dict(other.state_dict())
    assert master_of(model[0].weight).equal(other[0].weight)
    assert model[0].weight.equal(other[0].weight.bfloat16())
    layers().load_state_dict(model.state_dict())  # goes on in another precision
    halved_copy = copy.deepcopy(model)
    assert halved_copy.state_dict()["0.weight"].dtype == torch.bfloat16  # without its masters


class Keep(Callback):
    """Keeps losses, and what the weights and the gradients were like."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.types: set[torch.dtype] = set()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        block = module.model.encoder.model.layers[0].blocks[0]
        self.types.add(block.mlp.fc1.weight.dtype)


def test_training__has_the_numbers_of_mixed_precision(pretrain: Any) -> None:
    found = {}
    for precision in ("bf16-mixed", "bf16-true"):
        keep = Keep()
        trainer = pretrain(keep, **PRECISIONS[precision])
        assert trainer.precision == precision
        found[precision] = keep, trainer.lightning_module.model.state_dict()
    (mixed, expected), (half, weights) = found.values()
    assert (mixed.types, half.types) == ({torch.float32}, {torch.bfloat16})
    assert len(half.losses) == 6 and half.losses == mixed.losses
    for name, tensor in expected.items():
        assert weights[name].dtype == tensor.dtype and weights[name].equal(tensor), name


def test_training__goes_on_exactly_in_either_precision(pretrain: Any, tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    whole = pretrain(Save(), **PRECISIONS["bf16-true"]).lightning_module.model.state_dict()
    saved = torch.load(tmp_path / "0.ckpt", weights_only=False)
    assert {tensor.dtype for tensor in saved["state_dict"].values() if tensor.is_floating_point()}
    state = saved["optimizer_states"][0]["state"]
    assert {each["exp_avg"].dtype for each in state.values()} == {torch.float32}
    for precision in ("bf16-true", "bf16-mixed"):
        trainer = pretrain(Callback(), **PRECISIONS[precision], ckpt_path=tmp_path / "0.ckpt")
        assert trainer.global_step == 6
        rest = trainer.lightning_module.model.state_dict()
        assert all(rest[name].equal(tensor) for name, tensor in whole.items()), precision


def test_training__a_step_that_is_left_out_changes_nothing(
    pretrain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[dict[str, torch.Tensor]] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            state = module.model.state_dict()
            steps.append({name: tensor.clone() for name, tensor in state.items()})

    def break_the_second(self: SimMIM) -> None:
        if len(steps) == 1:
            next(self.parameters()).grad.fill_(torch.nan)

    monkeypatch.setattr(SimMIM, "after_backward", break_the_second)
    pretrain(Watch(), **PRECISIONS["bf16-true"], max_epochs=1)
    first, second, third = steps
    assert all(second[name].equal(tensor) for name, tensor in first.items())
    assert not all(third[name].equal(tensor) for name, tensor in second.items())


def test_trainer__computes_so_where_it_is_asked_to() -> None:
    trainer = Trainer(max_epochs=1, accelerator="cpu", devices=1, precision="bf16-true")
    assert isinstance(trainer.precision_plugin, HalfWeights)
    assert trainer.precision == "bf16-true"
    with pytest.raises(
        UserError, match="precision must be 32-true or bf16-mixed or bf16-true or 16-mixed"
    ):
        Trainer(max_epochs=1, precision="16-true")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "fsdp"}, "precision=bf16-true does not go with strategy=fsdp"),
        ({"accumulate_grad_batches": 4}, "accumulate_grad_batches=4 batches in bfloat16"),
    ],
)
def test_trainer__refuses_what_does_not_go_together(settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Trainer(max_epochs=1, accelerator="cpu", devices=1, precision="bf16-true", **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "is_equal"),
    [
        ("model=swin_nano model.version=2", True),
        ("model=swin_nano model.grad_checkpointing=true", True),
        ("model=vit_nano", True),
        ("model=resnet_nano", True),
        ("model=swin_nano objective=simmim_sparse", True),
        ("model=swin_nano objective=moby", False),
        ("model=swin_nano objective=ibot", False),
    ],
)
def test_job__of_every_kind_has_the_losses_of_mixed_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, is_equal: bool
) -> None:
    """Where a matrix is used several times, its gradients add up in bfloat16."""
    monkeypatch.chdir(tmp_path)
    small = "data=demo data.prepare.num_train=16 data.prepare.num_val=8 logger=csv batch_size=4"
    short = "trainer=cpu trainer.max_epochs=1 trainer.log_every_n_steps=1 schedule.warmup_epochs=0"
    without = [f"callbacks.{name}=null" for name in ("reconstructions", "probes", "features")]
    losses, weights = [], []
    for precision in ("bf16-mixed", "bf16-true"):
        settings = [*small.split(), *short.split(), *words.split(), *without, "num_workers=0"]
        run = ssl_swin.pretrain([*settings, f"trainer.precision={precision}", f"name={precision}"])
        rows = csv.DictReader((run / "metrics.csv").open())
        losses.append([float(row["train/loss"]) for row in rows if row["train/loss"]])
        weights.append(load_file(run / "backbone/model.safetensors"))
    assert len(losses[0]) == 4
    assert losses[1] == (losses[0] if is_equal else pytest.approx(losses[0], rel=1e-2))
    for name, tensor in weights[0].items():
        assert weights[1][name].dtype == tensor.dtype
        assert weights[1][name].equal(tensor) or not is_equal, name
