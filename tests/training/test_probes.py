import json

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image

from ssl_swin.probing.representation import rankme
from ssl_swin.runs.metrics import declared
from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.probe_curves import ProbeCurves
from ssl_swin.training.probe_records import read_initial, read_state
from ssl_swin.training.progress import StepAt

OF_LABELS = ("probe/knn_top1", "probe/linear_top1")
OF_ANY = ("rep/rankme", "rep/std_mean", "rep/cka_to_init")


def columns(trainer) -> list[str]:
    names = trainer.loggers[0].file.columns
    return [name for name in names if name.startswith(("probe/", "rep/"))]


def test_probes__judge_every_stage(pretrain, make_probes, logged, tmp_path):
    trainer = pretrain(make_probes(tmp_path))
    assert sorted(columns(trainer)) == sorted(
        f"{name}/stage{stage}" for name in (*OF_LABELS, *OF_ANY) for stage in (1, 2)
    )
    assert all(declared(name) is not None for name in columns(trainer))
    for stage in (1, 2):
        for name in OF_LABELS:  # dark from light is easy
            top1 = logged(trainer, f"{name}/stage{stage}")
            assert list(top1) == [0, 2, 4, 6]
            assert top1[0] == 100.0 and top1[6] > 60.0
        likeness = logged(trainer, f"rep/cka_to_init/stage{stage}")
        assert likeness[0] == 1 and 0 < likeness[6] < 1


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"num_classes": 1}, {"num_val": 0}])
def test_probes__without_labels_or_val_judge_what_needs_none(
    pretrain, make_probes, tmp_path, options
):
    trainer = pretrain(make_probes(tmp_path), **options)
    assert trainer.global_step == 6
    assert {name.rpartition("/")[0] for name in columns(trainer)} == set(OF_ANY)


def test_probes__learn_from_train_and_judge_val(pretrain, make_probes, tmp_path, monkeypatch):
    """The splits, the number of images, and whose features: those of the untrained network."""
    seen = []

    def top1(self, train, val, **settings):
        seen.append((train, val, settings["num_classes"]))
        return {}

    monkeypatch.setattr("ssl_swin.probing.stage_scores.QuickProbe.top1", top1)
    probes = make_probes(tmp_path, every_n_steps=9, num_train_images=5, num_val_images=1)
    trainer = pretrain(probes, max_epochs=1)
    (train, val, num_classes), *_ = seen
    assert (len(train.labels), len(val.labels), num_classes) == (8, 4, 2)  # whole batches of four
    assert len(seen) == 2 * 2  # two stages at step 0 and at the end
    samples = trainer.datamodule.labelled_loader("val")
    batch = next(iter(samples))
    initial = read_initial(tmp_path / "probes", batch.names)
    assert set(initial) == {1, 2} and initial[1].equal(val.features)
    assert batch.labels.equal(val.labels)
    assert logged_rank(trainer) == pytest.approx(rankme(initial[2]), rel=1e-5)


def logged_rank(trainer) -> float:
    ((_, row), *_) = trainer.loggers[0].file.rows(after=-1, up_to=0)
    return row["rep/rankme/stage2"]


def test_probes__draw_the_course_of_every_stage(pretrain, make_probes, tmp_path):
    """The same picture goes to dashboards; with half the steps it is another one."""

    class Pictures(MetricsCsv):
        def __init__(self):
            super().__init__(tmp_path / "other.csv", resume=False, progress=StepAt())
            self.seen = []

        def log_image(self, key, images, step):
            assert key == "probes/stages"
            self.seen.append((step, np.asarray(images[0])))

    pictures = Pictures()
    pretrain(make_probes(tmp_path, every_n_steps=3), loggers=[pictures])
    assert [step for step, _ in pictures.seen] == [0, 3, 6]
    drawn = np.asarray(Image.open(tmp_path / "probes.png"))
    (_, before), (_, last) = pictures.seen[1:]
    assert (drawn == last).all() and drawn.shape == before.shape and (drawn != before).any()


@pytest.mark.parametrize(
    ("ratio", "ranks", "warned_at"),
    [
        (0.1, [36.5, 1.19, 2.3, 1.9], [1]),  # said once
        (0.1, [34.9, 13.7, 18.1, 21.5], []),
        (0.1, [36.5, 1.19, 20.0, 1.2], [1, 3]),
        (0.0, [36.5, 1.0], []),
    ],
)
def test_probes__warn_of_a_rank_that_falls(make_probes, tmp_path, capsys, ratio, ranks, warned_at):
    probes = make_probes(tmp_path, min_rank_ratio=ratio)
    for step, rank in enumerate(ranks):
        probes.curves.add(step, {"rep/rankme/stage1": 1.0, "rep/rankme/stage2": rank})
        probes._look_at_rank(step)
        warned = "warning" in (said := capsys.readouterr().out)
        assert warned == (step in warned_at)
        assert not warned or (f"{rank:.3g}" in said and "36.5" in said)


def test_probes__look_at_the_rank_after_each_of_them(
    pretrain, make_probes, tmp_path, capsys, monkeypatch
):
    ranks = iter([1.0, 9.0, 1.0, 8.0, 1.0, 0.5])  # of two stages, at steps 0, 3 and 6
    home = "ssl_swin.training.callbacks.probes.label_free"
    monkeypatch.setattr(home, lambda *features: {"rankme": next(ranks)})
    pretrain(make_probes(tmp_path, every_n_steps=3, min_rank_ratio=0.1))
    said = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(said) == 1 and "at step 6 " in said[0] and "of 0.5," in said[0]


def test_probe_curves__of_a_run_that_is_continued_are_those_of_an_uninterrupted_one(
    pretrain, make_probes, tmp_path
):
    trainer = pretrain(make_probes(tmp_path))
    file = trainer.loggers[0].file
    whole, halves = ProbeCurves(), ProbeCurves()
    whole.take_up(file, 6)
    halves.take_up(file, 2)
    assert (halves.last_step, whole.last_step) == (2, 6)
    for step, row in file.rows(after=2, up_to=6):
        halves.add(step, row)
    pictures = [np.asarray(curves.write(tmp_path / "x.png")) for curves in (whole, halves)]
    assert (pictures[0] == pictures[1]).all()  # the file's numbers have seven digits
    assert np.asarray(Image.open(tmp_path / "probes.png")).shape == pictures[0].shape


def test_probes__change_nothing_of_a_training(pretrain, make_probes, tmp_path):
    class Draws(Callback):
        """Keeps what the generators would give after each batch."""

        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, *args):
            self.seen.append(torch.random.get_rng_state())

    def run(*callbacks):
        draws = Draws()
        callback = callbacks[0] if callbacks else Callback()
        trainer = pretrain(callback, loggers=(), **{"max_epochs": 2})
        draws.seen.append(torch.random.get_rng_state())
        return trainer.lightning_module, draws.seen

    probed, its_draws = run(make_probes(tmp_path, every_n_steps=1))
    plain, draws = run()
    weights = probed.state_dict()
    assert all(weights[name].equal(tensor) for name, tensor in plain.state_dict().items())
    assert all(one.equal(other) for one, other in zip(its_draws, draws, strict=True))
    assert probed.training


def test_probes__fail_with_a_line(pretrain, make_probes, tmp_path, monkeypatch, capsys):
    def fail(*args):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("ssl_swin.training.callbacks.probes.label_free", fail)
    assert pretrain(make_probes(tmp_path)).global_step == 6
    lines = [line for line in capsys.readouterr().out.splitlines() if "probes failed" in line]
    assert lines == [
        f"the probes failed: ZeroDivisionError: planted; training goes on, the traceback is in "
        f"{tmp_path}/errors.log"
    ]


class Clock:
    """Time that passes where a test says so."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        for module in ("time_budget", "probed_features", "callbacks.probes"):
            monkeypatch.setattr(f"ssl_swin.training.{module}.time.perf_counter", lambda: self.now)


def test_probes__keep_their_share_of_the_time(
    pretrain, make_probes, logged, tmp_path, monkeypatch, capsys
):
    clock = Clock(monkeypatch)
    taken = []

    def label_free(features, initial):
        clock.now += 1.0  # two stages: 2 s
        return {"rankme": 1.0}

    monkeypatch.setattr("ssl_swin.training.callbacks.probes.label_free", label_free)

    class Probing(type(make_probes(tmp_path))):
        def on_train_batch_end(self, *args):
            clock.now += 3.0
            super().on_train_batch_end(*args)
            taken.append((self.budget.spent_s, self.budget.elapsed_s))

    probes = Probing(
        tmp_path / "probes",
        **{"every_n_steps": 1, "num_train_images": 4, "k": 1, "temperature": 0.1},
        **{"linear_epochs": 1, "linear_base_lr": 0.1, "max_s": 99, "max_time_ratio": 0.2},
    )
    trainer = pretrain(probes, max_epochs=4)
    steps = list(logged(trainer, "rep/rankme/stage1"))
    # Of 2 s each and a fifth of the time, the nth one begins at 10 n - 2 s or later.
    assert steps == [0, 6, 8, 11]
    assert all(spent <= 0.2 * elapsed + 1e-9 for spent, elapsed in taken[5:])
    said = capsys.readouterr().out
    assert said.count("note: a probe takes 2.0 s, so it is left out at some of every 1 step") == 1
    assert read_state(tmp_path / "probes")["budget"]["spent_s"] == 8


def test_probes__take_as_many_images_as_there_is_time_for(
    pretrain, make_probes, tmp_path, monkeypatch, capsys
):
    clock = Clock(monkeypatch)
    sizes = []

    class Slow:
        def __init__(self, pooled):
            self.pooled = pooled

        def __call__(self, encoder, images, taps):
            clock.now += 10.0
            return self.pooled(encoder, images, taps)

    from ssl_swin.training import probed_features

    monkeypatch.setattr(probed_features, "pooled", Slow(probed_features.pooled))

    def top1(self, train, val, **settings):
        sizes.append((len(train.labels), len(val.labels)))
        return {}

    monkeypatch.setattr("ssl_swin.probing.stage_scores.QuickProbe.top1", top1)
    pretrain(make_probes(tmp_path, every_n_steps=3, max_s=48.0), max_epochs=1)
    # 19.2 s for val's two batches, which take 20; as long again for train's three: one and a half.
    assert set(sizes) == {(8, 6)}
    said = capsys.readouterr().out
    assert said.count("note: the probes take 8 images of train: there is no time for more") == 1
    assert read_state(tmp_path / "probes")["num_batches"] == {"val": 2, "train": 2}


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"budget": 3}', '{"budget": {"x": "y"}}'])
def test_read_state__damaged(tmp_path, content):
    assert read_state(tmp_path) == {}
    (tmp_path / "state.json").write_text(content)
    assert read_state(tmp_path) == {}
    good = {"budget": {"elapsed_s": 1, "spent_s": 2, "last_s": 3}, "num_batches": {"val": 4}}
    (tmp_path / "state.json").write_text(json.dumps(good))
    assert read_state(tmp_path) == good


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x00" * 99])
def test_read_initial__damaged_or_of_other_images(tmp_path, content):
    assert read_initial(tmp_path, ["a"]) == {}
    (tmp_path / "initial_features.npz").write_bytes(content)
    assert read_initial(tmp_path, ["a"]) == {}
