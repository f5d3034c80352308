"""What failures print, provoked: the blocks of docs/TROUBLESHOOTING.md that name a case.

`python tests/troubleshooting.py` (as root, which may mount a small disk) prints them anew.
"""

import re
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
from chaos import TINY
from disks import fill, free, remount, small_disk
from faults import AtBatch, SignalAtBatch, Together
from faults_in_parts import OnRank
from launched import LIMIT_S, start
from PIL import Image
from refusing_server import Refusing
from trouble_faults import (
    CtrlCWhileSaving,
    Environment,
    FailingExtras,
    NotANumberFrom,
    WithoutPackage,
)

from ssl_swin.runs.lock import RunLock

DISK_BYTES = 6_000_000
SETTINGS = (*TINY, "num_workers=0", "trainer.max_epochs=90")
RUN = Path("runs/pretrain/swins")
STOP = SignalAtBatch(signal.SIGTERM, 2)
SLURM = {"SLURM_JOB_ID": "12", "SLURM_JOB_NAME": "mim"}


def cases(place: Path) -> Iterator[tuple[str, str]]:
    """Yields the name of each case and what it prints of itself.

    Args:
        place: An empty folder, where one run meets one failure after the other.
    """
    with small_disk(place / "runs", DISK_BYTES) as disk:
        yield from _of_disks(place, disk)
        yield from _of_checkpoints(place)
        yield from _of_places(place)
    yield from _refused(place)
    yield from _of_dashboards(place)
    yield from _of_training(place)
    yield from _of_images(place)
    yield from _of_two(place)


def _of_disks(place: Path, disk: Path) -> Iterator[tuple[str, str]]:
    yield "full disk", _last(2, _run(place, fault=AtBatch(partial(fill, disk), 6)))
    free(disk)
    yield "read-only disk", _last(2, _run(place, fault=AtBatch(partial(remount, disk, "ro"), 3)))
    remount(disk, "rw")
    many = ("name=many", "callbacks.milestones.every_n_epochs=1")
    yield "disk too small", _last(1, _run(place, *many))


def _of_checkpoints(place: Path) -> Iterator[tuple[str, str]]:
    identity, last = place / RUN / "run_id", place / RUN / "checkpoints/last.ckpt"
    own = identity.read_text()
    identity.write_text(own[:-1] + ("0" if own[-1] != "0" else "1"))
    yield "changed run_id", _from("pretrain.py: no checkpoint", _run(place))
    identity.write_text(own)

    last.write_bytes(last.read_bytes()[:-1000])
    said = _run(place, fault=STOP, status=143)
    yield "damaged checkpoint", _fallback(said)
    yield "SIGTERM", _last(1, said)

    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    said = _run(place, "trainer.max_time=00:00:00:01", status=75)
    yield "bit flip", _fallback(said)
    yield "time limit", _last(1, said)

    last.write_bytes(b"")
    program = place / "bin/scontrol"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    slurm = Environment({**SLURM, "PATH": f"{program.parent}:/usr/bin:/bin"})
    said = _run(place, fault=Together((slurm, STOP)), status=143)
    yield "zero-byte file", _fallback(said)
    yield "requeue", _last(2, said)

    torch.save({"weights": torch.zeros(3)}, last)
    said = _run(place, fault=CtrlCWhileSaving(2), status=130)
    yield "checkpoint of a stranger", _fallback(said)
    yield "second Ctrl-C", _last(2, re.sub(r"\n\n+", "\n", said))


def _of_places(place: Path) -> Iterator[tuple[str, str]]:
    renamed = place / RUN.with_name("renamed")
    (place / RUN).rename(renamed)
    yield "renamed folder", _from("pretrain.py: ", _run(place, "name=renamed"))
    elsewhere = place / "elsewhere"
    (elsewhere / RUN).parent.mkdir(parents=True)
    (elsewhere / "data").symlink_to(place / "data")
    shutil.move(renamed, elsewhere / RUN)
    said = _run(elsewhere, fault=AtBatch(partial(shutil.rmtree, elsewhere / RUN), 3))
    yield "moved folder", _fallback(said)
    yield "vanished folder", _from("pretrain.py: ", said)


def _refused(place: Path) -> Iterator[tuple[str, str]]:
    held = RunLock(place / RUN, when_lost=print)
    held.acquire(say=print)
    try:
        yield "folder in use", _last(1, _run(place))
    finally:
        held.release()
    tensorboard = WithoutPackage(("tensorboard", "tensorboardX"))
    yield "no logger package", _last(1, _run(place, "logger=tensorboard", fault=tensorboard))
    hidden = Environment({"CUDA_VISIBLE_DEVICES": ""})
    gpu = ("trainer=gpu", "trainer.accelerator=gpu")
    yield "no GPU", _last(1, _run(place, *gpu, fault=hidden))
    named = ("logger=wandb", "logger.project=me/swin")
    yield "no name of a project", _last(1, _run(place, *named))


def _of_dashboards(place: Path) -> Iterator[tuple[str, str]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ports = {"W and B unreachable": 9, "W and B refuses the key": server.server_port}
        for name, port in ports.items():
            online = Environment(
                {
                    "WANDB_MODE": "online",
                    "WANDB_API_KEY": 40 * "a",
                    "WANDB_BASE_URL": f"http://127.0.0.1:{port}",
                    "WANDB_ERROR_REPORTING": "false",
                }
            )
            short = ("logger=wandb", "logger.settings.init_timeout=1", f"name=w{port}")
            said = _run(place, *short, fault=Together((online, STOP)), status=143)
            yield name, "\n".join(re.findall(r"^note: Weights.*", said, re.M))
        server.shutdown()


def _of_training(place: Path) -> Iterator[tuple[str, str]]:
    settings = (
        "name=g",
        "callbacks.skipped_steps.max_in_a_row=3",
        "callbacks.skipped_steps.max_rollbacks=1",
        "callbacks.probes.every_n_steps=3",
        "callbacks.probes.max_time_ratio=1",
        "callbacks.probes.num_train_images=8",
        "callbacks.reconstructions.every_n_steps=3",
    )
    said = _run(place, *settings, fault=Together((FailingExtras(), NotANumberFrom(5))), status=3)
    yield "failing extras", "\n".join(re.findall(r"^(?:a picture|the probes) failed.*", said, re.M))
    yield "step left out", "\n".join(re.findall(r"^step \d+ left out.*", said, re.M))
    yield "rollback", "\n".join(re.findall(r"^.*the weights go back.*", said, re.M))
    yield "gave up", _from("pretrain.py: gave up", said)


def _of_images(place: Path) -> Iterator[tuple[str, str]]:
    draw = np.random.default_rng(0)
    for number in range(24):
        pixels = draw.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        for split in ("train", "val")[: 2 if number < 4 else 1]:
            path = place / f"noise/{split}/{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    folder = ("data=folder", "data.root=noise", "data.labels=false", "name=n")
    short = ("trainer.max_epochs=2", "callbacks.collapse_alarm.warmup_steps=0")
    settings = [each for each in SETTINGS if not each.startswith("data.prepare")]
    said = _run(place, *folder, *short, status=0, settings=settings)
    yield "images in both splits", "\n".join(re.findall(r"^note: .* of val .*", said, re.M))
    yield "collapse", "\n".join(re.findall(r"^warning: the training looks.*", said, re.M)[:1])


def _of_two(place: Path) -> Iterator[tuple[str, str]]:
    killed = OnRank(1, SignalAtBatch(signal.SIGKILL, 3))
    yield "lost process", _last(1, _run(place, "name=two", fault=killed, status=1, num_ranks=2))


def _run(
    place: Path,
    *more: str,
    fault: Callable[[], None] | None = None,
    status: int = 2,
    num_ranks: int = 1,
    settings: tuple[str, ...] | list[str] = SETTINGS,
) -> str:
    """Returns what the first process of a run printed."""
    printed = place / "output0.txt"
    printed.unlink(missing_ok=True)
    named = () if any(each.startswith("name=") for each in more) else (f"name={RUN.name}",)
    processes = start((*settings, *named, *more), place, num_ranks, fault=fault)
    for process in processes:
        process.join(LIMIT_S)
        process.kill()
    said = printed.read_text()
    assert processes[0].exitcode == status, said
    assert 'File "' not in said, said
    said = said.replace(f"{place}/", "").replace(f" on {socket.gethostname()} ", " on node ")
    return re.sub(r"to go on: .*", "to go on: [the same command]", said).strip()


def _fallback(said: str) -> str:
    return "\n".join(re.findall(r"^(?:note: runs|continuing).*", said, re.M))


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
            print(f"<!-- case: {name} -->\n```\n{text}\n```\n", flush=True)
