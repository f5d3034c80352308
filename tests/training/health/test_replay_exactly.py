"""A replay computes what the run did to the bit: fine-tuning, ranks, accumulation, fp16's scale."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from faulty_runs import Numbers, collate, example, module_of, train, watcher
from launched import finish
from test_loss_scale import scaled

from ssl_swin.jobs.replay import replay
from ssl_swin.runs.skipped_steps import read_skipped_step, recorded_steps
from ssl_swin.training.health.replay import replay_step

SETTINGS = (
    "backbone=none",
    "model=swin_nano",
    "task._target_=poisoned.Unbounded",
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "model.drop_path_rate=0.5",
    "model.img_size_px=48",
    "data.prepare.num_train=28",
    "data.prepare.num_val=4",
    "data.prepare.size_px=48",
    "labels.per_class=2",
    "num_workers=0",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "ema_decay=0.9",
    "name=f",
)


def replayed(folder: Path, num_ranks: int, monkeypatch, *settings: str, strategy: str = ""):
    """Fine-tune where no step is finite, and repeat each; 20 images, the loss of each inf."""
    overrides = (*SETTINGS, *settings)
    finish(overrides, folder, num_ranks, job="finetune", strategy=strategy)
    monkeypatch.chdir(folder)
    run = Path("runs/finetune/f")
    return [replay(run, step, [], device="cpu") for step in recorded_steps(run)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_ranks", "settings", "num_batches"),
    [
        (1, ("batch_size=4", "trainer.accumulate_grad_batches=2"), [2, 2, 1]),
        (2, ("batch_size=2", "trainer.accumulate_grad_batches=3"), [6, 4]),
        (2, ("batch_size=4", "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=0.1"),
         [2, 2]),
    ],
)  # fmt: skip
def test_replay__fine_tuning_to_the_bit(tmp_path, monkeypatch, num_ranks, settings, num_batches):
    steps = replayed(tmp_path, num_ranks, monkeypatch, *settings)
    assert [len(step.found.batches) for step in steps] == num_batches
    for record, weights, found in steps:
        assert record.world_size == num_ranks and weights.name == "weights_0000000.pt"
        assert [batch.loss for batch in found.batches] == [math.inf] * len(record.batches)
        assert math.isfinite(found.gradient_norm)
        assert found.gradient_norm.hex() == record.gradient_norm
        assert len({(batch.recorded.rank, batch.recorded.number) for batch in found.batches}) == (
            len(found.batches)
        )
        for batch in found.batches:
            assert batch.sample_losses is not None and len(batch.sample_losses) == record.batch_size
            assert all(map(math.isfinite, batch.sample_losses))
            assert batch.culprit is not None and batch.culprit.kind == "Unbounded"


@pytest.mark.slow
def test_replay__divided_weights_to_rounding(tmp_path, monkeypatch):
    settings = ("batch_size=2", "ema_decay=null", "trainer.accumulate_grad_batches=3")
    steps = replayed(tmp_path, 2, monkeypatch, *settings, strategy="fsdp")
    assert [len(step.found.batches) for step in steps] == [6, 4]
    for record, _, found in steps:
        assert record.gradient_norm is not None
        expected = float.fromhex(record.gradient_norm)
        assert found.gradient_norm == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_replay__a_loss_scale_and_batch_statistics(tmp_path):
    faults = [(3, 0, "lonely"), (3, 2, "lonely")]
    train(
        tmp_path,
        faults,
        callbacks=[watcher(tmp_path)],
        plugins=scaled(1024.0),
        accumulate_grad_batches=3,
    )
    record = read_skipped_step(tmp_path, 3)
    assert record.loss_scale == 1024.0 and record.accumulated == 3
    module = module_of(faults)
    weights = torch.load(tmp_path / "nonfinite" / record.weights, weights_only=True)
    module.load_state_dict(weights["state_dict"])

    def load_batch(recorded):
        module.model.now = (record.step, recorded.number)
        return collate([example(Numbers()[int(name)], 0) for name in recorded.names])

    groups = [{"params": list(module.parameters())}]
    found = replay_step(
        module,
        dataclasses.replace(record, precision="32-true"),  # as the plugin here computes
        load_batch,
        lambda recorded: iter(()),
        groups,
        device=torch.device("cpu"),
    )
    assert [batch.loss.hex() for batch in found.batches] == [b.loss for b in record.batches]
    assert found.gradient_norm.hex() == record.gradient_norm
    assert found.groups[0].norm == pytest.approx(found.gradient_norm)
    assert math.isfinite(found.gradient_norm)
    for name, value in weights["state_dict"].items():
        if "norm.running" in name or "num_batches" in name:  # as before the step
            assert module.state_dict()[name].equal(value)
