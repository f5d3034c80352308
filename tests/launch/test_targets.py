"""What a `_target_` may name, and that nothing else is ever called."""

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import hydra.utils
import pytest
from omegaconf import OmegaConf

from ssl_swin.errors import UserError
from ssl_swin.launch.targets import check_targets, located, make, whitelist_for_hydra

ROOT = Path(__file__).parents[2]
OF_PYTHON = [
    "os.system",
    "posix.system",
    "builtins.eval",
    "subprocess.run",
    "functools.partial",
    "torch.os.system",
    "lightning.pytorch.loggers.wandb.os.system",
    "ssl_swin.files.os.system",
]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's, of a name that no other test imports."""
    (tmp_path / "own_parts.py").write_text(
        "import os\ndef part(**named): return named\nclass Whole:\n"
        "    def __init__(self, part): self.part = part\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return "own_parts"


@pytest.mark.parametrize("name", OF_PYTHON)
def test_make__calls_nothing_of_python(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    settings = {"_target_": name, "command": f"touch {mark}"}
    for group in (settings, {"_target_": "ssl_swin.Trainer", "profiler": settings}):
        with pytest.raises(UserError, match=r"may not be called here|of Python's own library"):
            make(OmegaConf.create(group))
    assert not mark.exists()


def test_make__a_package_of_ones_own(own: str) -> None:
    whole = make({"_target_": f"{own}.Whole", "part": {"_target_": f"{own}.part", "size": 3}})
    assert whole.part == {"size": 3}
    with pytest.raises(UserError, match=r"own_parts.os.system is of Python's own library \(posix"):
        make({"_target_": f"{own}.os.system", "command": "true"})


def test_check_targets__what_lies_inside_is_on_the_list_or_of_the_groups_own(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = {"trainer": {"_target_": "ssl_swin.Trainer", "plugins": [{"_target_": f"{own}.part"}]}}
    with pytest.raises(UserError, match=r"^trainer.plugins.0._target_: own_parts.part may not"):
        check_targets(inside)
    check_targets({**inside, "objective": {"_target_": f"{own}.Whole"}})
    monkeypatch.setenv("SSL_SWIN_PACKAGES", f"another,{own}")
    check_targets(inside)


def test_make__adds_arguments_and_takes_null() -> None:
    assert make(None) is None
    schedule = make({"_target_": "ssl_swin.MultistepSchedule", "warmup_lr": 0.0}, 1.0, gamma=0.5,
                    milestone_epochs=[2])  # fmt: skip
    assert (schedule.warmup_epochs, schedule.gamma) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "must be a dotted name"),
        ("ssl_swin.nothing", "there is no ssl_swin.nothing"),
        ("ssl_swin.masking.__doc__", "nothing that can be called"),
    ],
)
def test_located__names_the_key(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^model._target_.*{message}"):
        located("model._target_", name)


def test_make__tells_a_later_hydra_what_may_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 1.4 on; a stand-in, since that is above the ceiling in pyproject.toml."""
    told = {}
    later = SimpleNamespace(
        execution_whitelist=None, instantiate=lambda settings, **others: told.update(others)
    )
    monkeypatch.setattr("ssl_swin.launch.targets.hydra.utils", later)
    make({"_target_": "ssl_swin.swin"})
    assert "ssl_swin.*" in told["_execution_whitelist_"]
    assert "os.*" not in told["_execution_whitelist_"]

    def main(config_path: str, execution_whitelist: tuple[str, ...] = ()) -> None:
        """As in Hydra 1.4."""

    assert "hydra_plugins.*" in whitelist_for_hydra(main)["execution_whitelist"]
    assert whitelist_for_hydra(lambda config_path: None) == {}


def test_nobody_else_calls_hydras_instantiate() -> None:
    assert hasattr(hydra.utils, "instantiate")
    callers = set()
    for path in (ROOT / "ssl_swin").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            words = {getattr(node, "attr", None), getattr(node, "id", None)}
            if isinstance(node, ast.ImportFrom):
                words |= {alias.name for alias in node.names}
            if words & {"instantiate", "get_class", "get_object", "get_method"}:
                callers.add(path.relative_to(ROOT).as_posix())
    assert callers == {"ssl_swin/launch/targets.py"}
