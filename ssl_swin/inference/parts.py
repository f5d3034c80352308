"""Long work over images, kept part by part until it is one file.

A part is written whole or not at all, so that work which was cut short, by whatever means, goes on
after its last whole part and ends with the same bytes. A result that is a folder of files, some of
each image, grows beside the parts, and gets its name when it is whole.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from ssl_swin.data.loading.protocol import BadSample
from ssl_swin.display.work import Work
from ssl_swin.errors import UserError
from ssl_swin.files import (
    TEMPORARY,
    atomic_path,
    fsync,
    make_folder,
    remove,
    remove_leftovers,
    write_atomically,
)
from ssl_swin.inference.vectors import Rows

PART_IMAGES = 1024  # about as many in a part: what a kill may cost
NAMED_IN_ERROR = 3
_FACTS, _LOCK = "facts.json", "lock"
_OURS = re.compile(rf"{_FACTS}|{_LOCK}|\d{{6,}}\.safetensors|{TEMPORARY.pattern}")
BatchesFrom = Callable[[int], Iterable[Rows]]


class Parts:
    """The parts of a file or folder to be, in a folder beside it.

    Attributes:
        draft: Where files of a folder to be are written.
    """

    def __init__(
        self,
        out: Path,
        *,
        num_images: int,
        batch_size: int,
        part_images: int | None = None,
        is_folder: bool = False,
    ) -> None:
        """Set the parts up; nothing is read or written yet.

        Args:
            out: The file or folder.
            num_images: Number of images of the whole work.
            batch_size: Images of a batch; a part has whole batches.
            part_images: About as many images in a part; None takes `PART_IMAGES`.
            is_folder: Whether the result is a folder.
        """
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        self.draft = self.folder / out.name
        self.is_folder = is_folder
        self.num_images = num_images
        self.batches_per_part = max(1, (part_images or PART_IMAGES) // batch_size)
        self.images_per_part = self.batches_per_part * batch_size

    @property
    def num_parts(self) -> int:
        """Number of parts of the whole work."""
        return -(-self.num_images // self.images_per_part)

    @property
    def num_done(self) -> int:
        """Number of parts that are whole, from the first one on."""
        numbers = range(self.num_parts)
        return next((n for n in numbers if not self._path(n).exists()), self.num_parts)

    @contextmanager
    def held(self, facts: Mapping[str, Any]) -> Iterator[str]:
        """Hold the folder against other processes; keep its parts if they are of the same work.

        Args:
            facts: All that the results depend on, as JSON takes it.

        Yields:
            One line on what becomes of earlier parts; empty if there are none.

        Raises:
            UserError: If another process writes the same file, or the folder holds other files.
        """
        make_folder(self.folder)
        self._check_is_ours()
        try:
            with FileLock(self.folder / _LOCK, timeout=0):
                remove_leftovers(self.folder, before=time.time())
                try:
                    yield self._begin(json.loads(json.dumps(facts)))
                finally:
                    if not self.num_done:
                        self.remove()
        except Timeout as error:
            raise UserError(f"another process is writing {self.out}: wait for it") from error

    def _check_is_ours(self) -> None:
        """Refuse a folder of others, which would be removed in the end."""
        others = [path.name for path in self.folder.iterdir() if not _OURS.fullmatch(path.name)]
        beside = {self.out.name, *(f"{self.out.stem}.names.csv", f"{self.out.name}.bad.csv")}
        if strange := sorted({*others} - beside):
            raise UserError(
                f"{self.folder} is for the parts of {self.out}, and holds other files, among them "
                f"{strange[0]}: move it away, or write to another name"
            )

    def _begin(self, facts: dict[str, Any]) -> str:
        before = self._facts()
        num_images = min(self.num_done * self.images_per_part, self.num_images)
        if before == facts and (self.draft.is_dir() or not self.is_folder):
            return f"going on after {num_images:,} of {self.num_images:,} images" * bool(num_images)
        for path in self.folder.glob("*.safetensors"):
            path.unlink()
        if self.is_folder:
            remove(self.draft)
            make_folder(self.draft)
        write_atomically(self.folder / _FACTS, json.dumps(facts, indent=2) + "\n")
        if not num_images:
            return ""
        changed = [key for key in facts if before.get(key) != facts[key]]
        what = ", ".join(changed) or ("the version" if before != facts else "what was written")
        return f"starting over: {what} changed since the {num_images:,} images of before"

    def kept(self) -> str:
        """Return one line on how much will not be computed again."""
        num_images = min(self.num_done * self.images_per_part, self.num_images)
        return (
            f"{num_images:,} of {self.num_images:,} images are done and kept in {self.folder}; the "
            "same command goes on"
        )

    def compute(self, batches_from: BatchesFrom, name: str, *, max_bad: int) -> None:
        """Make the parts that are missing.

        Args:
            batches_from: Yields the results of each batch from one on, by its number.
            name: What is done, for the progress.
            max_bad: Most images that may be unreadable.

        Raises:
            UserError: If more images cannot be read.
        """
        done = self.num_done
        bad = [
            sample
            for number in range(done)
            for sample in self.read(number, values=False).bad_samples
        ]
        check_bad(bad, len(bad), max_bad, self.num_images)
        first_image = min(done * self.images_per_part, self.num_images)
        if done == self.num_parts:
            return
        pending: list[Rows] = []
        with Work(name, self.num_images, done=first_image) as work:
            for rows in batches_from(done * self.batches_per_part):
                pending.append(rows)
                bad += rows.bad_samples
                check_bad(bad, len(bad), max_bad, self.num_images)
                work.advance(rows.num_images, f"{len(bad)} bad" if bad else "")
                if len(pending) == self.batches_per_part:
                    self._write(done, pending)
                    done, pending = done + 1, []
            if pending:
                self._write(done, pending)

    def read(self, number: int, *, values: bool = True) -> Rows:
        """Read a part.

        Args:
            number: From 0.
            values: Whether its values are wanted; without them little is read.

        Raises:
            UserError: If it is damaged.
        """
        path = self._path(number)
        try:
            with safe_open(path, "pt") as file:
                told = json.loads(file.metadata()["rows"])
                labels = file.get_tensor("labels")
                names = [name for name in file.keys() if name != "labels"] if values else []
                tensors = {name: file.get_tensor(name) for name in names}
            bad_samples = [BadSample(*each) for each in told["bad"]]
            return Rows(told["names"], labels, tensors, bad_samples, told["num_images"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged: delete {self.folder}, and start again") from error

    def __iter__(self) -> Iterator[Rows]:
        return map(self.read, range(self.num_parts))

    def without_values(self) -> Iterator[Rows]:
        """Yield the parts that are whole with their names, labels and bad images alone."""
        return (self.read(number, values=False) for number in range(self.num_done))

    @contextmanager
    def whole(self, out: Path) -> Iterator[Path]:
        """Yield a path to write a whole file to, which is `out` afterwards.

        Args:
            out: The file, in the folder in which the parts' folder is.
        """
        draft = self.folder / out.name
        with atomic_path(draft) as temporary:
            yield temporary
        os.replace(draft, out)
        fsync(out.parent)

    def hand_over(self) -> None:
        """Give the folder that was written its name; it is whole.

        Raises:
            UserError: If something has come in its place.
        """
        try:
            os.replace(self.draft, self.out)
        except OSError as error:
            raise UserError(
                f"cannot write {self.out}: {error.strerror}. All is done and kept in "
                f"{self.folder}: the same command goes on once {self.out} is out of the way"
            ) from error
        fsync(self.out.parent)

    def remove(self) -> None:
        """Remove the folder: the result is whole."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _facts(self) -> dict[str, Any]:
        try:
            facts = json.loads((self.folder / _FACTS).read_text())
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"

    def _write(self, number: int, batches: list[Rows]) -> None:
        told = {
            "names": [name for batch in batches for name in batch.names],
            "bad": [[*sample] for batch in batches for sample in batch.bad_samples],
            "num_images": sum(batch.num_images for batch in batches),
        }
        values = [batch.values for batch in batches if batch.names]
        tensors = {
            name: torch.cat([each[name] for each in values]).contiguous()
            for name in (values[0] if values else ())
        }
        tensors["labels"] = torch.cat([batch.labels for batch in batches])
        content = safetensors.torch.save(tensors, metadata={"rows": json.dumps(told)})
        write_atomically(self._path(number), content)


def told_of(bad: BadSample) -> str:
    """Return which image could not be read, and why; a reason may name it itself."""
    return bad.reason if bad.name in bad.reason else f"{bad.name}: {bad.reason}"


def check_bad(bad: Sequence[BadSample], number: int, most: int, num_images: int) -> None:
    """Refuse to go on with images of which too many cannot be read.

    Args:
        bad: Some of those.
        number: How many there are.
        most: How many there may be.
        num_images: Number of images of the whole work.

    Raises:
        UserError: If they are more, or all.
    """
    if number <= most and number < num_images:
        return
    first = "; ".join(told_of(sample) for sample in bad[:NAMED_IN_ERROR])
    limit = f"more than the {most:,} that --max-bad allows" if number > most else "so all of them"
    raise UserError(
        f"{number:,} of {num_images:,} images could not be read, {limit}. Among them: {first}"
    )
