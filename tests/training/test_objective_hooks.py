"""What the loop tells an objective, and what it keeps of it, besides weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from ssl_swin.errors import UserError
from ssl_swin.jobs.settings import PretrainSettings
from ssl_swin.launch.settings import changeable
from ssl_swin.objectives.base import Progress
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.training.callbacks.reconstructions import Reconstructions
from ssl_swin.training.checkpointing.outside import check_outside


class OfElsewhere(SimMIM):
    """Computes with something that lies in another place."""

    places = ("teacher",)

    def __init__(self, encoder: Any, *, teacher: str, layer: int = 1) -> None:
        super().__init__(encoder)


def test_before_step__is_told_once_per_optimiser_step_where_the_run_is(pretrain, monkeypatch):
    told: list[Any] = []
    monkeypatch.setattr(SimMIM, "before_step", lambda self, progress: told.append(progress))
    monkeypatch.setattr(SimMIM, "after_step", lambda self, step: told.append(step))
    pretrain(Callback(), accumulate_grad_batches=2, max_epochs=2)  # three batches an epoch
    before = [Progress(step, num_steps=4, steps_per_epoch=2) for step in range(4)]
    assert told == [each for step in range(4) for each in (before[step], step + 1)]
    assert [progress.share for progress in before] == [0, 0.25, 0.5, 0.75]


def test_after_backward__may_freeze_a_layer_and_its_gradient_counts_no_more(pretrain, monkeypatch):
    norms: list[float] = []

    def freeze_all_but_the_bias(self: SimMIM) -> None:
        for name, parameter in self.named_parameters():
            assert parameter.grad is not None, name
            if name != "decoder.0.bias":
                parameter.grad = None
        norms.append(float(self.get_parameter("decoder.0.bias").grad.norm()))

    monkeypatch.setattr(SimMIM, "after_backward", freeze_all_but_the_bias)
    start: dict[str, torch.Tensor] = {}

    class Watch(Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            start.update((n, p.detach().clone()) for n, p in module.model.named_parameters())

    trainer = pretrain(Watch(), accumulate_grad_batches=2, max_epochs=1)  # two steps
    model = trainer.lightning_module.model
    changed = {n for n, p in model.named_parameters() if not p.equal(start[n])}
    assert changed == {"decoder.0.bias"}
    assert len(norms) == 2 and float(trainer.logged_metrics["optim/grad_norm"]) == norms[-1]


def test_progress__is_never_more_than_the_whole() -> None:
    assert Progress(step=7, num_steps=4, steps_per_epoch=2).share == 1


def test_checkpoint__holds_digests_of_what_lies_outside(pretrain, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(SimMIM, "outside", lambda self: {"teacher": "12ab"})
    trainer = pretrain(Callback())
    checkpoint: dict[str, Any] = {}
    trainer.lightning_module.on_save_checkpoint(checkpoint)
    assert checkpoint["outside"] == {"teacher": "12ab"}
    trainer.lightning_module.on_load_checkpoint(checkpoint)
    monkeypatch.setattr(SimMIM, "outside", lambda self: {"teacher": "34cd"})
    with pytest.raises(UserError, match=r"objective\.teacher is not what .* 12ab .* 34cd now"):
        trainer.lightning_module.on_load_checkpoint(checkpoint)


def test_check_outside__takes_checkpoints_that_know_of_nothing() -> None:
    check_outside({}, {"teacher": "12ab"})


def test_changeable__has_what_an_objective_says_that_may_have_moved() -> None:
    group = {"_target_": f"{__name__}.{OfElsewhere.__name__}", "teacher": "x", "layer": 2}
    more = {*changeable(PretrainSettings, {"objective": group})} - {*changeable(PretrainSettings)}
    assert more == {"objective.teacher"}


def test_reconstructions__of_an_objective_without_any_are_one_line(
    pretrain, monkeypatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(SimMIM, "figure", lambda self, batch, normalize: ())
    folder = tmp_path / "reconstructions"
    pretrain(Reconstructions(folder, every_n_steps=1, num_images=3, animate=True))
    line = "note: SimMIM has nothing to draw: no reconstructions"
    assert capsys.readouterr().out.count(line) == 1
    assert not folder.exists() and not folder.with_suffix(".webp").exists()
