"""Every command of README and docs is run, or composed and checked, as it stands there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from doc_scripts import PAGES, PROGRAMS, ROOT, Block, scripts
from PIL import Image
from typed_words import commands_of, run_words

pytestmark = pytest.mark.slow
RULES = yaml.safe_load((Path(__file__).parent / "commands.yaml").read_text())
JOBS = ("pretrain", "finetune", "segment", "detect", "linear_probe")
STAGES = {"swin_nano": 3}  # of all others four
SMALL_DATA = ["data.prepare.num_train=24", "data.prepare.num_val=10"]
ONE_EPOCH = ("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1")
BRIEF = {
    "pretrain": [*ONE_EPOCH, "num_workers=0", "batch_size=4"],
    "finetune": [*ONE_EPOCH, "num_workers=0", "batch_size=4"],
    "segment": [*ONE_EPOCH, "num_workers=0", "batch_size=2"],
    "detect": [*ONE_EPOCH, "num_workers=0", "batch_size=2"],
    "linear_probe": ["linear.epochs=11", "num_workers=0", "batch_size=4"],
}


def script_of(block: Block) -> str:
    text = block.text
    for abbreviated, typed in RULES["written"].items():
        text = text.replace(abbreviated, typed)
    return text


SCRIPTS = [(block, script_of(block)) for page in PAGES for block in scripts(page)]


def rule(words: list[str]) -> str:
    """Which part of commands.yaml speaks of a command; "run" if none does."""
    line = " ".join(words)
    for name in ("left", "parsed", "composed"):
        if any(re.search(entry["match"], line) for entry in RULES[name]):
            return name
    return "run"


def job_of(words: list[str]) -> str | None:
    name = words[1].removesuffix(".py").replace("-", "_") if len(words) > 1 else ""
    return name if name in JOBS else None


def briefly(words: list[str], number: int) -> list[str]:
    """A job made small, under a name of its own; other commands as they are."""
    job = job_of(words)
    if job is None:
        return words
    settings = dict(word.split("=", 1) for word in words[2:] if "=" in word)
    added = list(BRIEF[job])
    if job != "linear_probe":
        added += ["trainer.accelerator=cpu"]
    if settings.get("data", "demo") == "demo" and "data.prepare.num_train" not in settings:
        added += SMALL_DATA
    is_fresh = settings.get("backbone", "none") == "none"
    if is_fresh or "model" in settings:
        stages = STAGES.get(settings.get("model", "swin_nano"), 4) if is_fresh else 3
        narrow = [1] * (stages - 1) + [2]
        added += ["model.embed_dim=8", f"model.depths={[1] * stages}", f"model.num_heads={narrow}"]
    if "name" not in settings and "plan" not in settings:
        added += [f"name=docs{number}"]
    return words + [word.replace(" ", "") for word in added]


def one_job(words: list[str]) -> list[str]:
    """The first job of a sweep."""
    kept = [word for word in words if word not in ("-m", "--multirun")]
    return [re.sub(r"^(\w+=\w+),.*$", r"\1", word) for word in kept]


class World:
    """A folder with everything that the pages name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0

    def run(self, *words: str, status: int = 0) -> str:
        out = self.folder.parent / f"{self.folder.name}_printed"
        environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{self.folder}/examples"}
        ended = run_words(list(words), self.folder, out, environment)
        text = out.read_text()
        assert ended == status, (words, text[-2000:])
        assert 'File "' not in text, (words, text[-2000:])
        return text

    def carry_out(self, words: list[str]) -> None:
        self.number += 1
        kind = rule(words)
        if kind == "run":
            self.remove(words)
        if kind == "composed":
            self.run(*one_job(words), "--cfg", "job")
        elif kind == "parsed":
            options = {word for word in words if word.startswith("--")}
            program = words[:3] if words[1] == "-m" else words[:2]
            listed = self.run(*program, "--help")
            assert options <= set(re.findall(r"--[\w-]+", listed)), words
        elif kind == "run" and words[0] == "torchrun":
            self.start_processes(words)
        elif kind == "run":
            self.run(*briefly(words, self.number))

    def remove(self, words: list[str]) -> None:
        """Remove what a command is about to make, where the world or a block before has it."""
        if words[:2] in (["ssl-swin", "pack"], ["ssl-swin", "import"]):
            shutil.rmtree(self.folder / words[3], ignore_errors=True)
        if "--write" in words:
            (self.folder / words[words.index("--write") + 1]).unlink(missing_ok=True)

    def start_processes(self, words: list[str]) -> None:
        place = words.index("pretrain.py")
        job = briefly(["python", *words[place:]], self.number)[1:]
        command = [sys.executable, "-m", "torch.distributed.run", *words[1:place], *job]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr


def draw_images(folder: Path) -> None:
    rows = []
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(12):
            name = f"{label}/{number}.png"
            pixels = np.random.default_rng(len(rows)).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name)
            rows.append(f"{name},{label}")
    (folder / "train.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    table = "\n".join(["path,species", *rows]).replace(",", "\t")
    (folder / "list.tsv").write_text(table + "\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "world"
    folder.mkdir()
    for name in (*(f"{job}.py" for job in JOBS), "examples"):
        (folder / name).symlink_to(ROOT / name)
    draw_images(folder)
    world = World(folder)
    world.run("ssl-swin", "pack", "photos", "shards", "--val-ratio", "0.3", "--workers", "0")
    for name in ("SHARDS", "new_shards", "data/clothing"):
        shutil.copytree(folder / "shards", folder / name)
    shutil.copytree(folder / "photos", folder / "IMAGES")
    shards = ["data=shards", "data.root=shards"]
    for name in ("NAME", "swin_t_shards", "swin_b_shards"):
        words = ["ssl-swin", "pretrain", *shards, f"name={name}", "logger=csv"]
        world.run(*briefly(words, 0))
    run = "runs/pretrain/NAME"
    world.run("ssl-swin", "export", run, "--to", "simmim", "ckpt_epoch_99.pth")
    world.run("ssl-swin", "import", "ckpt_epoch_99.pth", "weights/simmim_b")
    mine = folder / "my_conf" / "experiment" / "finetune_mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# @package _global_\nseed: 5\n")
    photos = folder / "conf" / "data" / "photos.yaml"
    world.run("ssl-swin", "stats", "shards", "--write", str(photos), "--workers", "0")
    return folder


@pytest.mark.parametrize("page", sorted({block.page for block, _ in SCRIPTS}))
def test_commands_of_a_page(page: str, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "world"
    shutil.copytree(made, folder, symlinks=True)
    world = World(folder)
    for block, script in SCRIPTS:
        if block.page == page:
            for words in commands_of(script, PROGRAMS, folder):
                world.carry_out(words)


def test_every_rule_speaks_of_a_command() -> None:
    """A rule that nothing needs would hide the command that it is there for."""
    calls = [commands_of(script, PROGRAMS, ROOT) for _, script in SCRIPTS]
    lines = [" ".join(words) for call in calls for words in call]
    for name in ("left", "parsed", "composed"):
        for entry in RULES[name]:
            assert any(re.search(entry["match"], line) for line in lines), entry["match"]
