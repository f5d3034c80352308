"""A step that is not finite is left out as if it had not been, and training knows when to stop."""

import json
import math

import pytest
import torch
from faulty_runs import logged, module_of, same, state, train, watcher
from lightning.pytorch import Callback

from ssl_swin.errors import TrainingGaveUp, UserError
from ssl_swin.training.callbacks.ema import WeightEma
from ssl_swin.training.module import TrainingModule

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's, of loaders without workers


class LeavesOut(TrainingModule):
    """Leaves steps out by hand: the reference."""

    steps: tuple[int, ...] = ()

    def on_train_batch_start(self, batch, batch_idx):
        super().on_train_batch_start(batch, batch_idx)
        if self.global_step in self.steps and batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.before = {name: value.clone() for name, value in self.model.state_dict().items()}

    def optimizer_step(self, epoch, batch_idx, optimizer, closure):
        if self.global_step not in self.steps:
            return super().optimizer_step(epoch, batch_idx, optimizer, closure)
        closure()
        self.model.load_state_dict(self.before)
        self.made_step = False
        return None


def leaving_out(*steps):
    def make(faults):
        module = module_of(faults)
        module.__class__ = LeavesOut
        module.steps = steps
        return module

    return make


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    return state(*train(folder, make_module=leaving_out(2, 5, 6)))


@pytest.mark.parametrize("kind", ["loss", "lonely", "gradient"])
def test_skipped_steps__equal_a_run_that_left_them_out(tmp_path, capsys, kind, reference):
    faults = [(step, 0, kind) for step in (2, 5, 6)]
    watching = watcher(tmp_path)
    module, trainer = train(tmp_path, faults, callbacks=[watching])
    assert same(state(module, trainer), reference)
    assert trainer.global_step == 16 and module.num_skipped == 3
    assert module.model.after == [step for step in range(1, 17) if step not in (3, 6, 7)]
    skipped = logged(trainer, "health/skipped_steps")
    assert [skipped[step] for step in (2, 3, 5, 6, 7, 16)] == [0, 1, 1, 2, 3, 3]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"step {step} left out, its "
        + {"loss": "loss is nan on rank 0", "lonely": "loss is inf on rank 0"}.get(
            kind, "gradient norm is nan" if "nan" in lines[0] else "gradient norm is inf"
        )
        for step in (2, 5, 6)
    ]
    assert watching.summary().startswith("3 steps not finite and left out: ")


def test_skipped_steps__the_rate_of_the_next_step_is_the_schedules(tmp_path):
    _, with_fault = train(tmp_path / "a", [(3, 0, "loss")])
    _, without = train(tmp_path / "b")
    rates = [logged(trainer, "optim/lr") for trainer in (with_fault, without)]
    assert rates[0] == rates[1] and len(set(rates[0].values())) > 10


def test_skipped_steps__a_whole_accumulation_is_left_out(tmp_path):
    module, trainer = train(
        tmp_path / "a", [(1, 1, "loss")], callbacks=[watcher(tmp_path)], accumulate_grad_batches=2
    )
    by_hand = train(tmp_path / "b", make_module=leaving_out(1), accumulate_grad_batches=2)
    assert same(state(module, trainer), state(*by_hand))
    record = json.loads((tmp_path / "nonfinite/step_0000001.json").read_text())
    assert [
        (b["number"], b["position"], math.isfinite(float.fromhex(b["loss"])))
        for b in record["batches"]
    ] == [
        (0, 8, True),
        (1, 12, False),
    ]


@pytest.mark.parametrize("stopped_at", [5, 6, 7])
def test_skipped_steps__resumed_inside_a_row(tmp_path, stopped_at, reference):
    """The checkpoint after step 5, 6 or 7 lies before, inside and after a row of two."""
    faults = [(step, 0, "loss") for step in (2, 5, 6)]
    train(tmp_path, faults, callbacks=[watcher(tmp_path)], max_steps=stopped_at)
    checkpoint = tmp_path / f"checkpoints/step_{stopped_at}.ckpt"
    module, trainer = train(tmp_path, faults, callbacks=[watcher(tmp_path)], checkpoint=checkpoint)
    assert same(state(module, trainer), reference)
    assert module.num_skipped == 3
    records = [json.loads(p.read_text()) for p in sorted((tmp_path / "nonfinite").glob("*.json"))]
    assert [(r["step"], r["weights"]) for r in records] == [
        (2, "weights_0000002.pt"),
        (5, "weights_0000005.pt"),
        (6, "weights_0000005.pt"),
    ]


class AveragesByHand(Callback):
    def __init__(self, decay):
        self.decay = decay
        self.average = None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        now = {n: p.detach().clone() for n, p in pl_module.named_parameters()}
        if pl_module.made_step and self.average is None:
            self.average = now
        elif pl_module.made_step:
            self.average = {n: self.average[n].lerp(now[n], 1 - self.decay) for n in now}


def test_weight_ema__does_not_average_a_step_that_was_left_out(tmp_path):
    by_hand = AveragesByHand(0.75)
    faults = [(0, 0, "loss"), (4, 0, "loss")]
    module, _ = train(tmp_path, faults, callbacks=[by_hand, WeightEma(0.75)])
    for name, value in module.named_parameters():
        torch.testing.assert_close(value.detach(), by_hand.average[name], rtol=1e-6, atol=1e-7)


def test_skipped_steps__too_many_in_a_row_go_back_then_give_up(tmp_path, capsys):
    faults = [(step, 0, "loss") for step in range(6, 12)]
    with pytest.raises(TrainingGaveUp, match="gave up, after 1 return to a checkpoint: 3 steps"):
        train(tmp_path, faults, callbacks=[watcher(tmp_path)])
    said = capsys.readouterr().out
    assert "the weights go back to those of step 6 (return 1 of 1); the data goes on" in said
    assert not (tmp_path / "checkpoints/step_12.ckpt").exists()


def test_skipped_steps__go_back_to_weights_and_moments_of_the_checkpoint(tmp_path):
    """The row begins at 6; checkpoints are of step 4 and 8; then the data and the rate go on."""
    faults = [(step, 0, "gradient") for step in (6, 7, 8)]
    seen = []

    class Looks(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(
                (
                    batch.names,
                    trainer.optimizers[0].param_groups[0]["lr"],
                    state(pl_module, trainer),
                )
            )

    module, trainer = train(
        tmp_path / "a", faults, callbacks=[watcher(tmp_path / "a"), Looks()], every_n_steps=4
    )
    went_back = list(seen)
    seen.clear()
    train(tmp_path / "b", callbacks=[Looks()])
    assert [(names, lr) for names, lr, _ in went_back] == [(names, lr) for names, lr, _ in seen]
    assert same(went_back[8][2], seen[3][2])  # of step 4, after step 9
    assert not same(went_back[9][2], went_back[8][2])
    assert trainer.global_step == 16 and module.skipped_in_a_row == 0


def test_skipped_steps__resumed_after_a_return(tmp_path):
    faults = [(step, 0, "loss") for step in (6, 7, 8, 10)]
    whole = train(tmp_path / "a", faults, callbacks=[watcher(tmp_path / "a")], every_n_steps=4)
    again = tmp_path / "b"
    train(again, faults, callbacks=[watcher(again)], every_n_steps=4, max_steps=7)
    for checkpoint, options in (("step_4", {"max_steps": 12}), ("step_12", {})):
        resumed = train(
            again,
            faults,
            callbacks=[watcher(again)],
            every_n_steps=4,
            checkpoint=again / f"checkpoints/{checkpoint}.ckpt",
            **options,
        )
    assert same(state(*resumed), state(*whole))
    assert resumed[0].num_skipped == 4


def test_skipped_steps__without_a_healthy_checkpoint_it_gives_up(tmp_path):
    faults = [(step, 0, "loss") for step in range(3)]
    with pytest.raises(TrainingGaveUp, match=r"gave up, and .*checkpoints has none to go back to"):
        train(tmp_path, faults, callbacks=[watcher(tmp_path)])


def test_skipped_steps__few_lines_and_few_files(tmp_path, capsys):
    faults = [(step, 0, "loss") for step in range(1, 16, 2)]
    train(tmp_path, faults, callbacks=[watcher(tmp_path, max_records=3)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and "further ones are counted, not shown" in lines[-1]
    assert sorted(path.name for path in (tmp_path / "nonfinite").iterdir()) == [
        "step_0000011.json",
        "step_0000013.json",
        "step_0000015.json",
        "weights_0000013.pt",
        "weights_0000015.pt",
    ]


def test_training_module__refuses_to_start_from_weights_that_are_not_finite(tmp_path):
    def make(faults):
        module = module_of(faults)
        torch.nn.init.constant_(module.model.layer.bias, math.nan)
        return module

    with pytest.raises(UserError, match=r"training would start from are not finite \(layer.bias\)"):
        train(tmp_path, make_module=make)


def test_training_module__gives_up_on_weights_that_the_last_step_broke(tmp_path):
    class Breaks(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 16:
                torch.nn.init.constant_(pl_module.model.layer.bias, math.inf)

    with pytest.raises(TrainingGaveUp, match=r"16 steps weights are not finite \(layer.bias\)"):
        train(tmp_path, callbacks=[Breaks()], every_n_steps=100)
