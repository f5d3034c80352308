import hashlib
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import torch
from lightning.pytorch import Callback

from ssl_swin.data.detect_samples import DetectBatch
from ssl_swin.training.callbacks.batch_digest import BatchDigest


class Batches(Callback):
    """Keeps what the run trained on."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.kept.append((outputs["loss"].item(), batch))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rank0.jsonl").read_text().splitlines()]


def test_batch_digest__names_pixels_masks_and_loss_of_every_batch(pretrain, tmp_path):
    class Both(Batches, BatchDigest):
        def __init__(self) -> None:
            Batches.__init__(self)
            BatchDigest.__init__(self, tmp_path / "digest")

        def on_train_batch_end(self, *arguments: Any) -> None:
            Batches.on_train_batch_end(self, *arguments)
            BatchDigest.on_train_batch_end(self, *arguments)

    both = Both()
    pretrain(both)
    written = lines(tmp_path / "digest")
    places = [(line["epoch"], line["batch"], line["step"]) for line in written]
    assert places == [(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 4), (1, 1, 5), (1, 2, 6)]
    for line, (loss, batch) in zip(written, both.kept, strict=True):
        assert float.fromhex(line["loss"]) == loss
        assert line["names"] == batch.names
        for field, tensor in (("pixels", batch.pixels), ("masks", batch.mask)):
            expected = [hashlib.blake2b(t.numpy().tobytes(), digest_size=8) for t in tensor]
            assert line[field] == [digest.hexdigest() for digest in expected]
    assert len({pixels for line in written for pixels in line["pixels"]}) == 12


def test_batch_digest__appends_after_what_a_killed_run_left(pretrain, tmp_path):
    (tmp_path / "rank0.jsonl").write_text('{"batch": "whole"}\n{"batch": "ha')
    pretrain(BatchDigest(tmp_path), max_epochs=1)
    assert [line["batch"] for line in lines(tmp_path)] == ["whole", 0, 1, 2]


def test_batch_digest__objects_of_every_image(tmp_path):
    boxes = [torch.ones(2, 4), torch.zeros(0, 4)]
    masks = [torch.ones(2, 3, 3, dtype=torch.uint8), torch.zeros(0, 3, 3, dtype=torch.uint8)]
    flags = [torch.zeros(len(each)) for each in boxes]
    batch = DetectBatch(
        torch.zeros(2, 3, 32, 32), torch.ones(2, 2), boxes, flags, masks, flags, flags, ["a", "b"]
    )
    digest = BatchDigest(tmp_path)
    trainer = Mock(current_epoch=0, global_step=1, global_rank=0)
    digest.on_train_start(trainer, Mock())
    for each in (batch, batch._replace(masks=None)):
        digest.on_train_batch_end(trainer, Mock(), {"loss": torch.ones(())}, each, 0)
    digest.teardown(trainer, Mock(), "fit")
    with_masks, without = lines(tmp_path)
    for field, tensors in (("boxes", boxes), ("masks", masks)):
        expected = [hashlib.blake2b(t.numpy().tobytes(), digest_size=8) for t in tensors]
        assert with_masks[field] == [each.hexdigest() for each in expected]
    assert with_masks["names"] == ["a", "b"] and "masks" not in without
