"""Any file of a run's folder but its checkpoints may be damaged: the run goes on to the same end.

Which files there are is what a killed run has left, so that a new one is tried without a word here.
"""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults import NotANumber, SignalAtBatch, Together
from launched import LIMIT_S, output, start
from PIL import Image

from ssl_swin.probing.knn import knn_predict
from ssl_swin.safe_pickle import load_checkpoint

RUN = Path("runs/pretrain/k")
SETTINGS = [
    "data=folder",
    "data.root=photos",
    "data.val_ratio=0.2",
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "model.img_size_px=48",
    "batch_size=4",
    "num_workers=0",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=1",
    "trainer.enable_progress_bar=false",
    "callbacks.batch_digest.enabled=true",
    "callbacks.reconstructions.every_n_steps=2",
    "callbacks.probes.max_time_ratio=1",
    "callbacks.probes.every_n_steps=1",
    "callbacks.probes.num_train_images=8",
    "name=k",
]
STEPS_PER_EPOCH = 4
NUM_STAGES = 3
TOLD_OF = ("metrics.csv", "provenance.json", "config.yaml", "run_id", "bad_samples.jsonl")


@dataclass(frozen=True)
class FailingProbe:
    """Probes that raise, but for the first one, so that there are their files and an errors.log."""

    def __call__(self) -> None:
        from ssl_swin.probing import stage_scores

        calls = count(1)

        def fail(*args: Any, **settings: Any) -> Any:
            if next(calls) > NUM_STAGES:
                raise MemoryError
            return knn_predict(*args, **settings)

        assert stage_scores.knn_predict is knn_predict
        stage_scores.knn_predict = fail


ALWAYS = (NotANumber(step=2), FailingProbe())


def in_the_middle(content: bytes, more: bytes) -> bytes:
    return content[: len(content) // 2] + more + content[len(content) // 2 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "its end cut": lambda content: content[:-3],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "zeros in it": lambda content: in_the_middle(content, bytes(9)),
    "not UTF-8": lambda content: in_the_middle(content, b"\xff\xfe"),
    "no first line": lambda content: content.partition(b"\n")[2],
    "long lines": lambda content: content.replace(b"\n", b",1,2,nonsense\n"),
    "a strange line": lambda content: content + b'{"name": 3}\n',
    "a list": lambda content: b"[]\n",
    "nested lists": lambda content: b"[" * 100_000,
    "a mapping": lambda content: b'{"a": null}\n',
    "a path": lambda content: b"../../x",
}

HARMLESS = {  # what is left is a file of this kind, or says the same
    "metrics.csv": (DAMAGES["empty"],),
    "config.yaml": (DAMAGES["its end cut"], DAMAGES["no first line"]),
    "bad_samples.jsonl": (DAMAGES["empty"], DAMAGES["no first line"]),
    "provenance.json": (DAMAGES["a mapping"],),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, a run that nothing happened to (`whole`), and one killed in its second epoch."""
    folder = tmp_path_factory.mktemp("place")
    for number in range(21):
        path = folder / f"photos/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    broken = folder / "photos/a/0.png"
    broken.write_bytes(broken.read_bytes()[:200])
    _run(folder, 0, *ALWAYS)
    shutil.move(folder / RUN, folder / "whole")
    killed = SignalAtBatch(signal.SIGKILL, 2 * STEPS_PER_EPOCH)
    _run(folder, -signal.SIGKILL, *ALWAYS, killed)
    shutil.move(folder / RUN, folder / "killed")
    return folder


def _run(folder: Path, status: int, *faults: Callable[[], None]) -> None:
    (process,) = start(SETTINGS, folder, 1, fault=Together(faults))
    process.join(LIMIT_S)
    assert process.exitcode == status, output(folder, 0)


def files_beside_checkpoints(run: Path) -> list[str]:
    found = (path for path in sorted(run.rglob("*")) if path.is_file() and path.suffix != ".ckpt")
    return [str(path.relative_to(run)) for path in found]


def check(place: Path, names: list[str], damage: Callable[[bytes], bytes]) -> None:
    shutil.rmtree(RUN, ignore_errors=True)
    shutil.copytree(place / "killed", RUN)
    changed = []
    for name in names:
        before = (RUN / name).read_bytes()
        (RUN / name).write_bytes(damage(before))
        changed += [name] if damage(before) != before else []
    (place / "output0.txt").unlink()
    _run(place, 0)
    printed = (place / "output0.txt").read_text()
    assert 'File "' not in printed, printed
    expected, found = (
        load_checkpoint(run / "checkpoints/last.ckpt") for run in (place / "whole", RUN)
    )
    assert found["global_step"] == expected["global_step"]
    weights = expected["state_dict"]
    assert all(torch.equal(found["state_dict"][name], weights[name]) for name in weights)
    assert (RUN / "config.yaml").read_text() == (place / "whole/config.yaml").read_text()
    notes = [line for line in printed.splitlines() if line.startswith("note: ")]
    for name in set(changed) & set(TOLD_OF):
        if damage in HARMLESS.get(name, ()):
            continue
        told = [note for note in notes if name in note and "damaged" in note]
        kept = [*RUN.glob(f"{name}.damaged"), *RUN.glob(f"{Path(name).stem}.damaged*")]
        assert told and kept, (name, printed)
    assert json.loads((RUN / "provenance.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_the_killed_run_has_every_kind_of_file(place: Path) -> None:
    names = files_beside_checkpoints(place / "killed")
    assert {*TOLD_OF, "errors.log", "checkpoints/catalogue.json"} <= set(names)
    folders = {name.partition("/")[0] for name in names if "/" in name}
    pictures = {"features", "reconstructions"}
    assert folders == {"batch_digest", "checkpoints", "nonfinite", "probes", *pictures}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_all_files_at_once(place: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.chdir(place)
    check(place, files_beside_checkpoints(place / "killed"), DAMAGES[damage])


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES)
def test_each_file_alone(place: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.chdir(place)
    for name in files_beside_checkpoints(place / "killed"):
        check(place, [name], DAMAGES[damage])
