"""One command line for all jobs: by the scripts and by `ssl-swin`, with files of the user."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from ssl_swin.cli import main
from ssl_swin.commands.jobs import JOBS, job_of_completion
from ssl_swin.launch.command_line import command
from ssl_swin.launch.config_files import PACKAGE, compose_job, user_folder
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.launch.suggestions import explain_composition_error

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; sys.argv[0] = 'ssl-swin'; from ssl_swin.cli import main; sys.exit(main())"


@pytest.fixture(autouse=True)
def resolvers() -> Iterator[None]:
    register_resolvers()
    yield
    GlobalHydra.instance().clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an experiment in `mine` and another in `conf`."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "conf"):
        (tmp_path / name / "experiment").mkdir(parents=True)
        experiment = tmp_path / name / "experiment" / f"pretrain_{name}.yaml"
        experiment.write_text("# @package _global_\nrecipe:\n  title: Ours.\nbatch_size: 3\n")
    return tmp_path


def ssl_swin(
    *words: str, cwd: Path, line: str | None = None, program: tuple[str, ...] = ("-c", PROGRAM)
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; `line` is a command line to be completed."""
    env = {"PATH": "", "HOME": str(cwd), "PYTHONPATH": str(ROOT), "COMP_LINE": line or ""}
    return subprocess.run(
        [sys.executable, *program, *words], cwd=cwd, env=env, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("started", "job", "expected"),
    [
        (f"{ROOT}/linear_probe.py", "finetune", "python finetune.py"),
        ("/somewhere/linear_probe.py", "finetune", "ssl-swin finetune"),  # somebody else's
        ("/bin/ssl-swin", "pretrain", "ssl-swin pretrain"),
        ("/bin/ssl-swin", "linear_probe", "ssl-swin linear-probe"),
        ("-c", "finetune", "ssl-swin finetune"),
    ],
)
def test_command__as_this_process_was_started(
    monkeypatch: pytest.MonkeyPatch, started: str, job: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", [started, "seed=1"])
    assert command(job) == expected


@pytest.mark.parametrize(
    ("line", "job", "left"),
    [
        ("ssl-swin finetune model=sw", "finetune", "ssl-swin model=sw"),
        ("ssl-swin  linear-probe ", "linear-probe", "ssl-swin "),
        ("ssl-swin pre", "pretrain", "ssl-swin pre"),
        ("", "pretrain", ""),
    ],
)
def test_job_of_completion(line: str, job: str, left: str) -> None:
    environment = {"COMP_LINE": line}
    assert job_of_completion(environment) == job
    assert environment == {"COMP_LINE": left}


def test_help__names_every_job_and_imports_no_framework(tmp_path: Path) -> None:
    code = PROGRAM.replace("sys.exit(main())", "").strip("; ") + (
        "\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
        "\nprint({'torch', 'hydra', 'lightning', 'numpy'} & set(sys.modules))"
    )
    result = ssl_swin(cwd=tmp_path, program=("-c", code))
    assert result.stdout.splitlines()[-1] == "set()"
    assert all(f"    {job}" in result.stdout for job in JOBS)


@pytest.mark.slow
def test_job__composes_the_same_by_script_and_by_command(tmp_path: Path) -> None:
    """Also where the settings are short of a backbone, which a job would ask for."""
    options = ("backbone=none", "model=swin_t", "--cfg", "job")
    by_command = ssl_swin("linear-probe", *options, cwd=tmp_path)
    by_script = ssl_swin(*options, cwd=tmp_path, program=(str(ROOT / "linear_probe.py"),))
    assert by_command.returncode == by_script.returncode == 0
    assert "depths:" in by_command.stdout
    assert by_command.stdout == by_script.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_job__helps_with_its_own_name(tmp_path: Path) -> None:
    printed = ssl_swin("linear-probe", "--help", cwd=tmp_path).stdout
    assert "  ssl-swin linear-probe --multirun seed=0,1  runs once per value" in printed


def test_job__explains_under_its_own_name(tmp_path: Path) -> None:
    result = ssl_swin("pretrain", "model=swin_bb", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("ssl-swin pretrain: there is no model=swin_bb, did you mean")


def test_completion__of_a_group_by_the_job_of_the_line(folder: Path) -> None:
    line = "ssl-swin pretrain experiment=pretrain_c"
    printed = ssl_swin("-sc", "query=bash", cwd=folder, line=line).stdout
    assert printed.split() == ["experiment=pretrain_conf"]


def test_job__takes_an_experiment_of_config_dir(folder: Path) -> None:
    options = ("--config-dir", "mine", "experiment=pretrain_mine", "--cfg", "job")
    printed = ssl_swin("pretrain", *options, cwd=folder).stdout
    assert "batch_size: 3" in printed.splitlines()


def test_compose__experiments_of_the_user(folder: Path) -> None:
    assert compose_job("pretrain", ["experiment=pretrain_conf"]).batch_size == 3
    options = ["experiment=pretrain_mine"]
    assert compose_job("pretrain", options, config_dir=Path("mine")).batch_size == 3
    with pytest.raises(HydraException):
        compose_job("pretrain", options)


def test_compose__a_file_of_the_package_comes_first(folder: Path) -> None:
    own = folder / "conf/experiment/pretrain_small.yaml"
    own.write_text("# @package _global_\nbatch_size: 3\n")
    assert compose_job("pretrain", ["experiment=pretrain_small"]).batch_size == 64


def test_user_folder__is_not_the_packages_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert user_folder() is None
    own = ROOT / PACKAGE.replace(".", "/")
    (tmp_path / "conf").symlink_to(own)
    assert user_folder() is None


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("experiment=pretrain_mime", ["did you mean pretrain_mine", "pretrain_conf"]),
        ("recipe.titel=x", ["no setting recipe.titel", "did you mean recipe.title"]),
    ],
)
def test_suggestions__know_what_the_user_wrote(
    folder: Path, override: str, parts: list[str]
) -> None:
    options = ["experiment=pretrain_mine", override]
    with pytest.raises(HydraException) as refused:
        compose_job("pretrain", options, config_dir=folder / "mine")
    message = explain_composition_error(
        refused.value, "pretrain", ["--config-dir", "mine", *options]
    )
    assert all(part in message for part in parts), message


def test_show__composes_as_the_job_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "experiment=pretrain_cond", "--out", "batch.png"]) == 2
    assert "did you mean pretrain_conf" in capsys.readouterr().err
