"""What becomes of images that cannot be read: a list, two metrics, and a limit."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from ssl_swin.arguments import Count, Fraction, PathName, checked
from ssl_swin.data.loading.protocol import BadSample
from ssl_swin.errors import UserError
from ssl_swin.files import set_aside, write_atomically
from ssl_swin.training.all_ranks import joined

say = rank_zero_only(print)
MOST_LISTED = 1000
NAMED_IN_ERROR = 5


class BadSamples(Callback):
    """Counts over all ranks, lists each image once, and stops all ranks together past a limit.

    The first of a run is told on the console. Logs `data/bad_samples` and `data/bad_ratio` of the
    images seen, those of validation included.
    Ranks exchange their counts at every logged batch, and names only if somebody found any.
    """

    @checked
    def __init__(self, path: PathName, *, max_count: Count, max_ratio: Fraction) -> None:
        """Sets the callback up.

        Args:
            path: The list, one JSON object a line: name and reason.
            max_count: Bad images that are allowed in any case.
            max_ratio: Share of the images seen that is allowed besides.
        """
        self.path = Path(path)
        self.max_count = max_count
        self.max_ratio = max_ratio
        self._num_bad = 0
        self._num_seen = 0
        self._seen_here = 0  # since the last exchange, on this rank
        self._reasons: dict[str, str] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes up the list of a run that goes on; what is damaged in it is left out."""
        if not self.path.exists():
            return
        self._reasons, is_whole = _read(self.path)
        if not is_whole and trainer.is_global_zero:
            aside = set_aside(self.path)
            say(f"note: {self.path} has damaged lines, left out; as it was, it is {aside.name}")
            self._write()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Exchanges and logs where Lightning logs."""
        self._seen_here += len(batch[0])
        every_n_batches: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every_n_batches > 0 and (batch_idx + 1) % every_n_batches == 0:
            self._exchange(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts what validation has seen, since its bad images count too."""
        self._seen_here += len(batch[0])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exchanges what came after the last logged batch."""
        self._exchange(trainer, pl_module)

    def summary(self) -> str:
        """Return how many images could not be read and where they are listed; nothing if none."""
        if not self._num_bad:
            return ""
        share = 100 * self._num_bad / max(1, self._num_seen)
        return (
            f"{self._num_bad:,} of {self._num_seen:,} images seen ({share:.2g} %) could not be "
            f"read and were replaced, {len(self._reasons):,} different ones: {self.path}"
        )

    def state_dict(self) -> dict[str, int]:
        """The counts over all ranks up to the last exchange."""
        return {"num_bad": self._num_bad, "num_seen": self._num_seen}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on counting."""
        self._num_bad, self._num_seen = state_dict["num_bad"], state_dict["num_seen"]

    def _exchange(self, trainer: Trainer, module: LightningModule) -> None:
        found: list[BadSample] = trainer.datamodule.take_bad_samples()  # type: ignore[attr-defined]
        here = torch.tensor([len(found), self._seen_here], device=module.device)
        num_bad, num_seen = trainer.strategy.reduce(here, reduce_op="sum").tolist()
        self._seen_here = 0
        self._num_bad += num_bad
        self._num_seen += num_seen
        if num_bad:
            self._list(trainer, joined(found), is_first=self._num_bad == num_bad)
            self._check()
        ratio = self._num_bad / max(1, self._num_seen)
        module.log("data/bad_samples", float(self._num_bad))
        module.log("data/bad_ratio", ratio)

    def _list(self, trainer: Trainer, found: list[BadSample], *, is_first: bool) -> None:
        if is_first and found:
            name, reason = (_in_one_line(text) for text in found[0])
            say(
                f"note: the image {name} cannot be read and is replaced by another ({reason}). It "
                f"is the first; all are listed in {self.path}"
            )
        for name, reason in found:
            if len(self._reasons) < MOST_LISTED:
                self._reasons.setdefault(name, reason)
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        lines = (json.dumps({"name": n, "reason": r}) for n, r in self._reasons.items())
        write_atomically(self.path, "".join(f"{line}\n" for line in lines))

    def _check(self) -> None:
        allowed = int(self.max_count + self.max_ratio * self._num_seen)
        if self._num_bad <= allowed:
            return
        first = list(self._reasons.items())[:NAMED_IN_ERROR]
        raise UserError(
            f"{self._num_bad} of {self._num_seen} images could not be read, more than the "
            f"{allowed} that data.max_bad_samples and data.max_bad_ratio allow. The first:\n"
            + "".join(f"  {name}: {reason}\n" for name, reason in first)
            + f"All are in {self.path}; ssl-swin check looks through a whole set"
        )


def _read(path: Path) -> tuple[dict[str, str], bool]:
    """Return the reasons by name of a list, and whether all its lines are whole."""
    lines = path.read_bytes().splitlines()
    found = [_read_line(line) for line in lines]
    return dict(pair for pair in found if pair is not None), None not in found


def _read_line(line: bytes) -> tuple[str, str] | None:
    try:
        content = json.loads(line.decode())
        name, reason = content["name"], content["reason"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (name, reason) if isinstance(name, str) and isinstance(reason, str) else None


def _in_one_line(text: str) -> str:
    """Return a text that may hold a file's name without what steers a terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
