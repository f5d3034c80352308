"""What failures print, provoked: the blocks of docs/TROUBLESHOOTING.md that name a case.

`python tests/troubleshooting.py` (as root, which may mount a small disk) prints them anew.
"""

import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from chaos import TINY
from disks import AtBatch, fill, free, remount, small_disk
from faults import SignalAtBatch
from launched import LIMIT_S, start

DISK_BYTES = 6_000_000
SETTINGS = (*TINY, "num_workers=0", "name=swins")
RUN = "runs/pretrain/swins"


def cases(place: Path) -> Iterator[tuple[str, str]]:
    """Yields the name of each case and what it prints of itself.

    Args:
        place: An empty folder, where one run meets one failure after the other.
    """
    checkpoints = place / RUN / "checkpoints"
    with small_disk(place / "runs", DISK_BYTES) as disk:
        yield "full disk", _last(2, _run(place, AtBatch(partial(fill, disk), 6)))
        free(disk)
        yield "read-only disk", _last(2, _run(place, AtBatch(partial(remount, disk, "ro"), 3)))
        remount(disk, "rw")
        identity = place / RUN / "run_id"
        own = identity.read_text()
        identity.write_text(own[:-1] + ("0" if own[-1] != "0" else "1"))
        yield "changed run_id", _from("pretrain.py: no checkpoint", _run(place))
        identity.write_text(own)
        last = checkpoints / "last.ckpt"
        last.write_bytes(last.read_bytes()[:-1000])
        said = _run(place, SignalAtBatch(signal.SIGTERM, 2))
        yield (
            "damaged checkpoint",
            "\n".join(re.findall(r"^(?:note: runs|continuing).*", said, re.M)),
        )


def _run(place: Path, fault: Callable[[], None] | None = None) -> str:
    printed = place / "output0.txt"
    printed.unlink(missing_ok=True)
    (process,) = start(SETTINGS, place, 1, fault=fault)
    process.join(LIMIT_S)
    assert process.exitcode, printed.read_text()
    return printed.read_text().replace(f"{place}/", "").strip()


def _last(number: int, said: str) -> str:
    return "\n".join(said.splitlines()[-number:])


def _from(words: str, said: str) -> str:
    return said[said.index(words) :]


def masked(text: str) -> str:
    """Returns a text without numbers and ids, which differ each time."""
    return re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name, text in cases(Path(folder)):
            print(f"<!-- case: {name} -->\n```\n{text}\n```\n")
