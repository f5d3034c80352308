"""`ssl-swin replay` repeats the very step, and names image and module."""

import json
import re
from pathlib import Path

import pytest
from poisoned import POISON

import ssl_swin
from ssl_swin.cli import main
from ssl_swin.errors import TrainingGaveUp

SETTINGS = [
    "objective._target_=poisoned.Poisoned",
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "model.drop_path_rate=0.5",
    "data.prepare.num_train=16",
    "data.prepare.num_val=4",
    "data.prepare.size_px=48",
    "model.img_size_px=48",
    "batch_size=4",
    "num_workers=0",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.enable_progress_bar=false",
    "trainer.accumulate_grad_batches=2",
    "callbacks.probes=null",
    "callbacks.reconstructions=null",
]


RUN = Path("runs/pretrain/swin_nano_demo")


def pretrain() -> None:
    """One batch an epoch has such an image; so has the validation, which the end tells."""
    with pytest.raises(TrainingGaveUp, match="after 4 steps on validation the loss is nan"):
        ssl_swin.pretrain(SETTINGS)
    assert not (RUN / "backbone").exists()


def test_replay__names_the_module_and_the_image(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pretrain()
    said = capsys.readouterr().out
    first, second = sorted((RUN / "nonfinite").glob("step_*.json"))
    record = json.loads(first.read_text())
    (bad,) = [n for n, batch in enumerate(record["batches"]) if batch["loss"] == "nan"]
    (command,) = re.findall(rf"ssl-swin (replay \S+ --step {record['step']}) repeats it", said)

    assert main([*command.split(), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert f"step {record['step']} of {RUN}: its loss is nan on rank 0\n" in said
    by_batch = re.split(r"rank 0, batch \d: ", said.partition("gradient norm by group")[0])[1:]
    assert len(by_batch) == 2 and all("to the bit" in part for part in by_batch)
    assert "that of fault (Fault); its inputs are finite" in by_batch[bad]
    assert "every output of the forward pass is finite" in by_batch[1 - bad]
    assert "1 of 4 not finite" in by_batch[bad] and "0 of 4 not finite" in by_batch[1 - bad]
    assert re.search(rf"nan +\S*{POISON}", by_batch[bad])
    assert re.search(r"  decay +nan +not finite: \S+, \S+, \S+ and \d+ more", said)

    assert main(["replay", str(RUN), "--device", "cpu"]) == 0  # the last one
    assert f"step {json.loads(second.read_text())['step']} of" in capsys.readouterr().out


@pytest.mark.slow
def test_replay__what_it_needs_is_gone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pretrain()

    def refusal(*options):
        capsys.readouterr()
        assert main(["replay", str(RUN), *options]) == 2
        return capsys.readouterr().err

    (first, second) = sorted((RUN / "nonfinite").glob("step_*.json"))
    known = ", ".join(str(int(path.stem[5:])) for path in (first, second))
    assert f"has no record of step 999; steps with one: {known}" in refusal("--step", "999")
    record = json.loads(second.read_text())
    record["batches"][0]["names"][0] = "another"
    second.write_text(json.dumps(record))
    assert "the data has changed since" in refusal()
    second.write_text(second.read_text()[:-30])
    assert f"{second} is damaged" in refusal()
    for weights in (RUN / "nonfinite").glob("*.pt"):
        weights.unlink()
    number = str(int(first.stem[5:]))
    assert f"the weights before step {number} are not kept any more" in refusal("--step", number)
    for path in (first, second):
        path.unlink()
    assert "holds no record of a step that was not finite" in refusal()
