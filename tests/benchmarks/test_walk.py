"""A program of three modules, whose walk is counted by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

WALK = Path(__file__).parents[2] / "benchmarks" / "walk.py"
FILES = {
    "job.py": "from ssl_swin.launch import build\nbuild.main()\n",
    "ssl_swin/__init__.py": "",
    "ssl_swin/data.py": "def batch():\n    return 1\n",
    "ssl_swin/model.py": "def loss(batch):\n    return batch\n",
    "ssl_swin/launch/__init__.py": "",
    "ssl_swin/launch/build.py": """
from ssl_swin import data, model
def build_encoder():
    model.loss(1)
def training_step(batch):
    model.loss(batch)
def main():
    build_encoder()
    for _ in range(3):
        training_step(data.batch())
""",
}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("build_encoder", "2 modules, 1 passages: launch/build, model"),
        ("step", "3 modules, 2 passages: data, launch/build, model"),
    ],
)
def test_walk__counts_modules_and_passages(tmp_path: Path, part: str, expected: str) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    command = [sys.executable, str(WALK), part, str(tmp_path / "job.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{part}: {expected}\n"
