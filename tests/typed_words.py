"""Bash takes command lines apart; they run in processes that have imported everything."""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ssl_swin.cli import main

LIMIT_S = 300
JOBS = ("pretrain", "finetune", "linear_probe")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["hydra.main", "ssl_swin.cli", *(f"ssl_swin.jobs.{job}" for job in JOBS)]
)


def commands_of(script: str, programs: Sequence[str], folder: Path) -> list[list[str]]:
    """The words of each call of a program in a script, in order; nothing is executed.

    Variables, quotes, pipes and substitutions are bash's own. What a call would print is empty.
    """
    functions = [
        f"{name}() {{ printf '%s\\0' {name} \"$@\" >&3; printf '\\1\\0' >&3; }}"
        for name in programs
    ]
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as words:
        bash = ["bash", "-c", "\n".join([f"exec 3>&{writing}", *functions, script])]
        done = subprocess.run(bash, cwd=folder, capture_output=True, text=True, pass_fds=[writing])
        os.close(writing)
        text = words.read().decode()
    assert (done.returncode, done.stderr) == (0, ""), script
    return [call.split("\0")[:-1] for call in text.split("\1\0")[:-1]]


def run_words(words: list[str], folder: Path, out: Path, environment: dict[str, str]) -> int | None:
    """Run `ssl-swin ...`, `python FILE ...` or `python -m MODULE ...` there; its exit code.

    Args:
        words: The program and its arguments.
        folder: Working directory.
        out: File that gets all that is printed.
        environment: What is added to the environment.
    """
    process = CONTEXT.Process(target=_run, args=(words, folder, out, environment))
    process.start()
    process.join(LIMIT_S)
    if process.exitcode is None:
        process.kill()
    return process.exitcode


def _run(words: list[str], folder: Path, out: Path, environment: dict[str, str]) -> None:
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ |= {"HOME": str(folder.parent), "WANDB_MODE": "offline"} | environment
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    written = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(written, 1)
    os.dup2(written, 2)
    if words[0] == "ssl-swin":
        sys.argv = words
        sys.exit(main())
    if words[1] == "-m":
        sys.argv = words[2:]
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        return
    sys.argv = words[1:]
    runpy.run_path(words[1], run_name="__main__")
