import multiprocessing
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.optim import SGD

from ssl_swin.data.batch import LabeledSample
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import BadSample
from ssl_swin.errors import UserError
from ssl_swin.training.datamodule import ImageDataModule

ORDER = OrderConstants(block=2, pool=8, lanes=1)


class Numbers(ImageDataset):
    """Image i is the byte first + i."""

    classes = ("a", "b")
    fingerprint = "numbers"

    def __init__(self, first: int, length: int) -> None:
        self.first = first
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> EncodedSample:
        return EncodedSample.of_image(bytes([self.first + index]), "png", index % 2, str(index))


def data_module(batch_size: int = 4, num_workers: int = 0, **lengths: int) -> ImageDataModule:
    """Splits of the given lengths: numbers from 0 in train, 100 in val and 200 in test."""
    first = {"train": 0, "val": 100, "test": 200}
    return ImageDataModule(
        {split: IndexedSplit(Numbers(first[split], n), ORDER) for split, n in lengths.items()},
        train_samples=lambda record, epoch: (record.data[0], epoch),
        eval_samples=lambda record, epoch: record.data[0],
        labelled_samples=lambda record, epoch: LabeledSample(
            torch.tensor([record.data[0]]), 0, record.name
        ),
        collate=torch.tensor,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=0,
    )


def numbers(loader: Any) -> list[int]:
    return [int(number) for batch in loader for number in batch.flatten()]


def labelled_numbers(loader: Any) -> list[int]:
    return [int(number) for batch in loader for number in batch.pixels.flatten()]


def test_data_module__splits_get_their_samples():
    data = data_module(train=10, val=6, test=3)
    batches = list(data.train_dataloader())
    assert [batch.shape for batch in batches] == [(4, 2), (4, 2)]
    assert data.num_train_batches() == 2
    assert {int(number) for batch in batches for number in batch[:, 0]} <= set(range(10))
    assert sorted(numbers(data.val_dataloader())) == list(range(100, 106))
    assert sorted(numbers(data.test_dataloader())) == [200, 201, 202]
    assert sorted(labelled_numbers(data.labelled_loader("train"))) == list(range(10))


def test_data_module__splits_that_are_not_there():
    data = data_module(train=10)
    assert data.val_dataloader() == data.test_dataloader() == []


def test_data_module__devices_share_train_and_val():
    train, val, labelled = [], [], []
    for rank in range(3):
        data = data_module(batch_size=2, train=13, val=7)
        trainer: Any = SimpleNamespace(global_rank=rank, world_size=3)
        data.trainer = trainer
        batches = list(data.train_dataloader())
        assert len(batches) == data.num_train_batches() == 2
        train += [int(number) for batch in batches for number in batch[:, 0]]
        val += numbers(data.val_dataloader())
        labelled += labelled_numbers(data.labelled_loader("val"))
    assert len(set(train)) == len(train) == 12
    assert sorted(val) == sorted(labelled) == list(range(100, 107))


@pytest.mark.parametrize(("lengths", "held_out"), [({"val": 5}, 100), ({}, 0)])
@pytest.mark.parametrize(("asked", "given"), [(3, 3), (50, 5)])
def test_held_out_batch__first_images_of_val_or_train(lengths, held_out, asked, given):
    data = data_module(train=5, **lengths)
    batch = data.held_out_batch(asked)
    assert len(set(batch.tolist())) == given
    assert set(batch.tolist()) <= set(range(held_out, held_out + 5))
    assert batch.equal(data.held_out_batch(asked))


def test_train_dataloader__fewer_images_than_a_batch():
    data = data_module(batch_size=4, train=7)
    data.trainer = SimpleNamespace(global_rank=0, world_size=2)
    with pytest.raises(UserError, match=r"7 training images cannot fill one batch of 4 on 2 dev"):
        data.train_dataloader()


def test_state_dict__continues_the_order():
    whole = [batch.tolist() for batch in data_module(train=13).train_dataloader()]
    first, second = data_module(train=13), data_module(train=13)
    next(iter(first.train_dataloader()))
    second.load_state_dict(first.state_dict())
    assert [b.tolist() for b in second.train_dataloader()][:2] == whole[1:]
    assert (first.state_dict()["epoch"], first.state_dict()["position"]) == (0, 4)


def test_load_state_dict__changed_data():
    data = data_module(train=13)
    data.train_dataloader()
    state = data.state_dict() | {"fingerprint": "before", "num_samples": 12}
    with pytest.raises(UserError, match="then 12 images, fingerprint before; now 13, numbers"):
        data_module(train=13).load_state_dict(state)


def test_load_state_dict__changed_order():
    data = data_module(train=13)
    data.train_dataloader()
    state = data.state_dict()
    state["order"] = state["order"] | {"seed": 1}
    with pytest.raises(UserError, match=r"ordered by \{'seed': 1,.*set seed and data.order back"):
        data_module(train=13).load_state_dict(state)


def test_load_state_dict__other_global_batch(capsys):
    first, second = data_module(train=13, batch_size=4), data_module(train=13, batch_size=6)
    next(iter(first.train_dataloader()))
    second.load_state_dict(first.state_dict())
    said = capsys.readouterr().out
    assert "batches over all devices were of 4 images and are now of 6" in said
    order = numbers(batch[:, 0] for batch in data_module(train=13, batch_size=1).train_dataloader())
    assert numbers(batch[:, 0] for batch in second.train_dataloader())[:6] == order[4:10]


def test_val_dataloader__fewer_images_than_devices():
    data = data_module(train=13, val=2)
    data.trainer = SimpleNamespace(global_rank=0, world_size=3)
    with pytest.raises(UserError, match="val has 2 images, fewer than the 3 devices"):
        data.val_dataloader()


def test_take_bad_samples__of_all_loaders_once():
    data = data_module(train=13, val=6)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        loader.bad_samples.append(BadSample("x", "damaged"))
    assert data.take_bad_samples() == [("x", "damaged")] * 2
    assert data.take_bad_samples() == []


class Recorder(LightningModule):
    """Writes down (epoch, numbers) of the training batches it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        assert (batch[:, 1] == self.current_epoch).all()
        self.seen.append((self.current_epoch, batch[:, 0].tolist()))
        return self.weight.square()

    def configure_optimizers(self) -> SGD:
        return SGD(self.parameters(), lr=0.1)


def fit(max_epochs: int, num_workers: int, folder: Any, resume_from: str | None = None) -> Recorder:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Recorder()
    data = data_module(num_workers=num_workers, train=13)
    trainer.fit(module, datamodule=data, ckpt_path=resume_from)
    return module


@pytest.mark.parametrize("num_workers", [0, 2])
def test_train_dataloader__resumes_in_the_epoch_of_the_checkpoint(tmp_path, num_workers):
    uninterrupted = fit(3, num_workers, tmp_path / "a").seen
    assert [epoch for epoch, _ in uninterrupted] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    first = fit(1, num_workers, tmp_path / "b").seen
    (checkpoint,) = (tmp_path / "b").rglob("*.ckpt")
    rest = fit(3, num_workers, tmp_path / "c", str(checkpoint)).seen
    assert first + rest == uninterrupted
    assert not multiprocessing.active_children()  # workers end with their run
