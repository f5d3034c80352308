import json
from pathlib import Path

import pytest

from ssl_swin.data.loading.protocol import BadSample
from ssl_swin.errors import UserError
from ssl_swin.training.callbacks.bad_samples import BadSamples


class Damaged(BadSamples):
    """Finds a bad image after some of the batches, counted from 0."""

    def __init__(self, path: Path, batches: set[int], **limits: float) -> None:
        super().__init__(path, **({"max_count": 50, "max_ratio": 0.001} | limits))
        self.batches = batches
        self.number = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.number in self.batches:
            found = BadSample(f"image {self.number % 2}", "cut short")
            trainer.datamodule.train_dataloader().bad_samples.append(found)
        self.number += 1
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def listed(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_bad_samples__are_counted_logged_and_listed_once(pretrain, logged, tmp_path, capsys):
    path = tmp_path / "bad_samples.jsonl"
    trainer = pretrain(Damaged(path, {0, 1, 2}), log_every_n_steps=1, num_val=0)
    assert list(logged(trainer, "data/bad_samples").values()) == [1, 2, 3, 3, 3, 3]
    assert logged(trainer, "data/bad_ratio")[6] == pytest.approx(3 / 24)
    assert listed(path) == [
        {"name": "image 0", "reason": "cut short"},
        {"name": "image 1", "reason": "cut short"},
    ]
    assert next(c for c in trainer.callbacks if isinstance(c, BadSamples)).summary() == (
        f"3 of 24 images seen (12 %) could not be read and were replaced, 2 different ones: {path}"
    )
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: the i")]
    assert said == [
        "note: the image image 0 cannot be read and is replaced by another (cut short). It is the "
        f"first; all are listed in {path}"
    ]


def test_bad_samples__none(pretrain, logged, tmp_path):
    trainer = pretrain(
        Damaged(tmp_path / "bad_samples.jsonl", set()), log_every_n_steps=1, num_val=0
    )
    assert set(logged(trainer, "data/bad_samples").values()) == {0.0}
    assert not (tmp_path / "bad_samples.jsonl").exists()
    assert all(not c.summary() for c in trainer.callbacks if isinstance(c, BadSamples))


@pytest.mark.parametrize(("max_count", "max_ratio"), [(2, 0.0), (0, 0.17), (1, 0.1)])
def test_bad_samples__past_the_limit(pretrain, tmp_path, max_count, max_ratio):
    """One in each of the second, third and fourth batches of four images."""
    path = tmp_path / "bad_samples.jsonl"
    callback = Damaged(path, {1, 2, 3}, max_count=max_count, max_ratio=max_ratio)
    message = r"3 of 16 images could not be read, more than the 2 that .*\n  image 1: cut short\n"
    with pytest.raises(UserError, match=message):
        pretrain(callback, log_every_n_steps=1, num_val=0)
    assert len(listed(path)) == 2


def test_bad_samples__goes_on_counting_and_listing(pretrain, logged, tmp_path):
    path = tmp_path / "bad_samples.jsonl"
    path.write_text('{"name": "old", "reason": "gone"}\n')
    callback = Damaged(path, {5})
    callback.load_state_dict({"num_bad": 7, "num_seen": 76})
    trainer = pretrain(callback, log_every_n_steps=1, num_val=0)
    assert callback.state_dict() == {"num_bad": 8, "num_seen": 100}
    assert logged(trainer, "data/bad_ratio")[6] == pytest.approx(0.08)
    assert [line["name"] for line in listed(path)] == ["old", "image 1"]


def test_bad_samples__after_the_last_logged_batch_count_too(pretrain, tmp_path):
    callback = Damaged(tmp_path / "bad_samples.jsonl", {5})
    pretrain(callback, log_every_n_steps=100, num_val=0)
    assert callback.state_dict() == {"num_bad": 1, "num_seen": 24}


def test_bad_samples__of_validation_count_beside_what_it_has_seen(pretrain, tmp_path):
    class DamagedVal(BadSamples):
        def on_validation_start(self, trainer, pl_module):
            found = BadSample("val image", "cut short")
            trainer.datamodule.train_dataloader().bad_samples.append(found)

    callback = DamagedVal(tmp_path / "bad_samples.jsonl", max_count=50, max_ratio=0.0)
    pretrain(callback, num_val=6, num_sanity_val_steps=0)
    assert callback.state_dict() == {"num_bad": 2, "num_seen": 24 + 2 * 6}
