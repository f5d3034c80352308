"""Two sources in one loader: each in its own order, from any place, with or without processes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.few_labels import FewImages, keep_few_images, left_out_images
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.paired import Companion, shared_out
from ssl_swin.data.loading.protocol import LoaderConfig
from ssl_swin.errors import UserError
from ssl_swin.training.datamodule import ImageDataModule

ORDER = OrderConstants(block=2, pool=8, lanes=1)


class Bytes(ImageDataset):
    """Image i is the byte first + i."""

    classes = ()

    def __init__(self, first: int, length: int) -> None:
        self.first = first
        self.length = length
        self.fingerprint = f"from {first}"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> EncodedSample:
        if index >= self.length:
            raise IndexError(index)
        return EncodedSample.of_image(bytes([self.first + index]), "png", None, str(index))


def number_and_epoch(record: EncodedSample, epoch: int) -> tuple[int, int]:
    return record.data[0], epoch


def joined(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.cat([first, second])


def module(labelled=5, unlabelled=11, batch_size=2, beside=3, num_workers=0, companion=True):
    pair = Companion(
        IndexedSplit(Bytes(100, unlabelled), ORDER),
        number_and_epoch,
        torch.tensor,
        beside,
        joined,
    )
    return ImageDataModule(
        {"train": IndexedSplit(Bytes(0, labelled), ORDER)},
        train_samples=number_and_epoch,
        eval_samples=number_and_epoch,
        collate=torch.tensor,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=3,
        companion=pair if companion else None,
    )


def endless(loader: Any) -> Iterator[list[Any]]:
    while True:
        yield from (batch.tolist() for batch in loader)


def first_batches(data: ImageDataModule, number: int) -> list[Any]:
    batches = endless(data.train_dataloader())
    return [next(batches) for _ in range(number)]


def test_batches__have_fixed_numbers_of_both_each_in_its_own_order():
    data = module()
    assert data.num_train_batches() == len(data.train_dataloader()) == 11 // 3
    batches = first_batches(data, 6)
    alone = first_batches(module(companion=False), 6)
    assert [batch[:2] for batch in batches] == alone
    assert [{epoch for _, epoch in batch[:2]} for batch in batches] == [
        {0},
        {0},
        {1},
        {1},
        {2},
        {2},
    ]
    second = [batch[2:] for batch in batches]
    assert [{epoch for _, epoch in part} for part in second] == [{0}] * 3 + [{1}] * 3
    for part in (second[:3], second[3:]):
        seen = [number for batch in part for number, _ in batch]
        assert len(set(seen)) == 9 and min(seen) >= 100


@pytest.mark.parametrize("num_workers", [0, 2])
def test_state__continues_both(num_workers):
    whole = first_batches(module(), 7)
    for number in (1, 3, 4):
        begun = module()
        first_batches(begun, number)
        state = begun.state_dict()
        continued = module(num_workers=num_workers)
        continued.load_state_dict(state)
        assert first_batches(continued, 3) == whole[number : number + 3]


def test_state__refuses_other_images_of_either():
    begun = module()
    first_batches(begun, 1)
    state = begun.state_dict()
    changed = state | {"companion": state["companion"] | {"fingerprint": "others"}}
    with pytest.raises(UserError, match="fingerprint others; now 11, from 100"):
        module().load_state_dict(changed)
    with pytest.raises(UserError, match="fingerprint others; now 5, from 0"):
        module().load_state_dict(state | {"fingerprint": "others"})


def test_num_train_batches__refuses_too_few_of_either():
    with pytest.raises(UserError, match=r"1 training image cannot fill .* lower batch_size"):
        module(labelled=1).num_train_batches()
    with pytest.raises(UserError, match=r"2 images without labels .* lower semi.num_unlabelled"):
        module(unlabelled=2).num_train_batches()


@pytest.mark.parametrize(
    ("workers", "sizes", "expected"),
    [
        (0, (1, 4), (0, 0)),
        (1, (1, 4), (0, 1)),
        (2, (1, 4), (1, 1)),
        (5, (1, 4), (1, 4)),
        (4, (2, 2), (2, 2)),
        (3, (9, 1), (2, 1)),
    ],
)
def test_shared_out__by_the_number_of_images(workers, sizes, expected):
    first, second = shared_out(LoaderConfig(sizes[0], workers, 1, 3), sizes[1])
    assert (first.num_workers, second.num_workers) == expected
    assert (first.batch_size, second.batch_size) == sizes
    assert {first.rank, second.rank} == {1} and {first.world_size, second.world_size} == {3}


def test_left_out_images__are_those_without_labels():
    whole = IndexedSplit(Bytes(0, 20), ORDER)
    few = FewImages(ratio=0.25, seed=4)
    kept = keep_few_images(whole, few)
    others = left_out_images(kept)
    numbers = [
        {split.dataset[index].data[0] for index in range(split.num_samples)}
        for split in (kept, others)
    ]
    assert [len(each) for each in numbers] == [5, 15] and numbers[0] | numbers[1] == {*range(20)}
    assert kept.fingerprint != others.fingerprint
    for everything in (FewImages(), FewImages(ratio=1.0)):
        with pytest.raises(UserError, match=r"leave no image out, .* semi.unlabelled_root=PATH"):
            left_out_images(keep_few_images(whole, everything))


class Nothing(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Any] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch.tolist())
        return self.weight.square()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.slow
def test_fit__ends_the_processes_of_both(tmp_path):
    import multiprocessing

    data, lightning = module(num_workers=3), Nothing()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(lightning, datamodule=data)
    assert lightning.seen == first_batches(module(), 6)
    assert multiprocessing.active_children() == []
