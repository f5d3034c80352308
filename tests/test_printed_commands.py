"""Every command that a job or `ssl-swin` prints runs as it is printed, whatever the names in it."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typed_words import commands_of, run_words

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
# Hydra itself cannot start a sweep where the path of the working directory holds ${...}.
HOSTILE = 'it\'s $(touch pwned) `id` "q" a=b,[c] é'
BRIEF = "trainer.max_epochs=1 num_workers=0 logger=csv trainer.enable_progress_bar=false"
BRIEF_PROBE = "linear.epochs=11 num_workers=0 logger=csv"
NANO = "model.embed_dim=8 model.depths=[1,1,1] model.num_heads=[1,1,2]"


class Shell:
    """Bash in a folder of hostile name, with `ssl-swin` and `python`.

    Bash takes a line apart and gives back the words that a program would get; the program then runs
    in a process that has imported everything already.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / HOSTILE
        self.folder.mkdir()
        self.programs = folder / "bin"
        self.programs.mkdir()
        (self.programs / "python").symlink_to(sys.executable)

    def run(self, line: str, status: int = 0) -> str:
        """Run a line; return what it printed."""
        (words,) = commands_of(line, ("ssl-swin", "python"), self.folder)
        assert not list(self.folder.rglob("pwned")), line
        out = self.folder.parent / "printed"
        ended = run_words(words, self.folder, out, {"PATH": str(self.programs)})
        text = out.read_text()
        assert ended == status, f"{line}\n{text[-3000:]}"
        assert 'File "' not in text
        return text


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    made = Shell(tmp_path_factory.mktemp("printed"))
    for number in range(12):
        for place in ("photos ${x}$(x)/cat", "photos ${x}$(x)/it's a dog", "plain=1"):
            folder = made.folder / place
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
        (made.folder / "bands").mkdir(exist_ok=True)
        np.save(made.folder / f"bands/{number}.npy", np.zeros((5, 40, 40), np.uint16) + number)
    return made


def printed(text: str) -> list[str]:
    """The commands in what was printed: behind `next:`, behind `see:`, and below `next:`."""
    commands = re.findall(r"(?:next|see|Make it|add): (.+)", text)
    if "next:\n" in text:
        commands += re.findall(r"^  (\S.*)$", text.split("next:\n")[1], re.MULTILINE)
    return [line for line in commands if line.startswith(("ssl-swin ", "python ", "name="))]


def test_labelled_images__from_packing_to_a_classifier(shell: Shell) -> None:
    packed = shell.run(
        "ssl-swin pack 'photos ${x}$(x)' './-s=$(touch pwned)' --val-ratio 0.3 --workers 0"
    )
    (pretrain,) = printed(packed)
    ended = shell.run(f"""{pretrain} {BRIEF} {NANO} 'name="r=1, $(touch pwned)"'""")
    probe, finetune = printed(ended)
    assert "batch_size=" in finetune  # 16 images do not fill the recipe's batch
    assert "finished" not in shell.run(f"{probe} {BRIEF_PROBE}")
    ended = shell.run(f"{finetune} {BRIEF}")
    predict, sweep = (line.partition("  #")[0] for line in printed(ended))
    assert "24 images\ntop-1 " in shell.run(predict)
    assert shell.run(sweep).count("\nfinished ") == 3


def test_scripts__print_what_runs_from_here(shell: Shell) -> None:
    options = f"data=folder 'data.root=\"photos \\${{x}}$(x)\"' data.val_ratio=0.3 {BRIEF} {NANO}"
    ended = shell.run(f"python {ROOT}/pretrain.py batch_size=4 {options} name=-x")
    probe, _ = printed(ended)
    assert probe.startswith(f"python {ROOT}/linear_probe.py backbone=runs/pretrain/-x data=folder ")
    shell.run(f"{probe} {BRIEF_PROBE}")
    again = shell.run(f"python {ROOT}/pretrain.py batch_size=4 {options} name=-x")
    probe, _ = printed(again)
    assert probe.endswith(" name=-x_folder_2")  # the first one is taken
    shell.run(f"{probe} {BRIEF_PROBE}")
    refused = shell.run(
        f"python {ROOT}/pretrain.py batch_size=4 {options} name=-x trainer.max_epochs=2", status=2
    )
    (more,) = printed(refused)
    more = more.partition(" (the")[0]
    assert more == "name=-x_2 resume=runs/pretrain/-x/checkpoints/last.ckpt"
    longer = f"python {ROOT}/pretrain.py batch_size=4 {options} {more} trainer.max_epochs=2"
    assert "finished -x_2: 8 steps" in shell.run(longer)


def test_statistics__print_what_finds_the_configuration(shell: Shell) -> None:
    inside = shell.run("ssl-swin stats plain=1 --write 'conf/data/a b$(x).yaml' --workers 0")
    (pretrain,) = printed(inside)
    shell.run(f"{pretrain} {BRIEF} {NANO}")
    outside = shell.run("ssl-swin stats plain=1 --write 'my conf/data/p=1.yaml' --workers 0")
    (pretrain,) = printed(outside)
    ended = shell.run(f"{pretrain} {BRIEF} {NANO}")
    assert printed(ended) == []
    assert "probing and fine-tuning need labels" in ended
    assert printed(shell.run("ssl-swin stats plain=1 --write anywhere.yaml --workers 0")) == []


def test_images_of_many_bands__lead_to_statistics_first(shell: Shell) -> None:
    packed = shell.run("ssl-swin pack bands 'b s' --val-ratio 0.2 --workers 0")
    (stats,) = printed(packed)
    shell.run(f"{stats} --workers 0 --write conf/data/bands.yaml")


def test_index__prints_what_reads_the_shards(shell: Shell) -> None:
    shell.run("ssl-swin pack 'photos ${x}$(x)' '[s]' --val-ratio 0.3 --workers 0")
    (pretrain,) = printed(shell.run("ssl-swin index '[s]' --out '{i}' --workers 0"))
    shell.run(f"{pretrain} {BRIEF} {NANO}")


def test_import__prints_what_starts_from_it(shell: Shell) -> None:
    small = "data.prepare.num_train=24 data.prepare.num_val=10 batch_size=8"
    shell.run(f"ssl-swin pretrain {small} {BRIEF} {NANO}")
    shell.run("ssl-swin export runs/pretrain/swin_nano_demo --to timm 'w $(x).safetensors'")
    imported = shell.run("ssl-swin import 'w $(x).safetensors' none --img-size-px 96")
    (finetune,) = printed(imported)
    assert "backbone=./none" in finetune
    shell.run(f"{finetune} {BRIEF} {small}")


def test_errors__print_commands_that_run(shell: Shell) -> None:
    shell.run("ssl-swin pack 'photos ${x}$(x)' '$(touch pwned)' --val-ratio 0.3 --workers 0")
    os.remove(shell.folder / "$(touch pwned)/index.json")
    (index,) = printed(shell.run("ssl-swin check '$(touch pwned)'", status=2))
    shell.run(index)
    shell.run("ssl-swin check '$(touch pwned)' --workers 0")


def test_sweep__of_many_overrides_has_names_that_can_be_typed(shell: Shell) -> None:
    """More than twelve overrides, with brackets and commas; each folder serves as backbone=."""
    small = "data.prepare.num_train=24 data.prepare.num_val=10 batch_size=8"
    more = "objective.mask_ratio=0.5 optim.base_lr=1e-4 optim.betas=[0.9,0.95]"
    more += " augment.crop_scale=[0.5,1]"
    shell.run(f"ssl-swin pretrain --multirun {small} {BRIEF} {NANO} {more} name=many seed=0,1")
    folders = sorted(
        path.parent for path in shell.folder.glob("runs/pretrain/many_sweep/*/backbone")
    )
    assert len(folders) == 2
    assert all(re.fullmatch(r"[\w.+-]{1,150}", folder.name) for folder in folders)
    backbone = folders[0].relative_to(shell.folder)
    shell.run(f"ssl-swin linear-probe backbone={backbone} {small} {BRIEF_PROBE}")
