"""Which package may import which: only what is listed here, and the list has no circle."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ssl_swin"
FRAMEWORKS = {"lightning", "hydra", "omegaconf", "wandb"}
# Modules at the top.
GROUND = {
    "errors",
    "arguments",
    "files",
    "plain_yaml",
    "safe_pickle",
    "masking",
    "pixels",
    "figure",
    "quoting",
    "stopping",
    "plurals",
    "display",
}
# A package, and the packages and modules that it may import. Whatever stands on one line may not
# import what stands below it.
EDGES: dict[str, set[str]] = {
    "errors": set(),
    "arguments": {"errors"},
    "quoting": set(),
    "stopping": set(),
    "plurals": set(),
    "disk_errors": {"errors"},
    "files": {"errors", "disk_errors"},
    "display": {"stopping"},
    "plain_yaml": {"errors"},
    "safe_pickle": {"errors"},
    "divided_checkpoint": {"errors", "safe_pickle"},
    "masking": {"errors"},
    "pixels": {"errors"},
    "figure": set(),
    "encoders": {"errors", "arguments", "masking"},
    "data": GROUND,
    "runs": {
        "errors",
        "disk_errors",
        "files",
        "plain_yaml",
        "quoting",
        "safe_pickle",
        "divided_checkpoint",
    },
    "probing": {"errors", "arguments", "figure", "files"},
    "objectives": GROUND | {"encoders", "data"},
    "tasks": GROUND | {"encoders", "data", "objectives"},
    "optim": {"errors", "arguments", "encoders", "objectives"},
    "reporting": GROUND | {"probing", "runs"},
    "weights": GROUND | {"data", "divided_checkpoint", "encoders", "objectives", "tasks"},
    "inference": GROUND | {"data", "encoders", "probing", "reporting", "tasks", "weights"},
    "deploy": GROUND | {"encoders", "inference", "probing", "tasks", "weights"},
    "serving": GROUND | {"data", "encoders", "inference", "objectives", "reporting", "weights"},
    "training": GROUND
    | {"data", "disk_errors", "divided_checkpoint", "encoders", "objectives", "tasks", "optim"}
    | {"probing", "reporting", "runs"},
}
CORE = set(EDGES) - {"training"}
EDGES["conf"] = set()
EDGES["launch"] = set(EDGES) - {"conf"}
EDGES["jobs"] = set(EDGES) - {"conf"}
EDGES["commands"] = set(EDGES) - {"conf"}
EDGES["cli"] = {"errors", "commands", "display"}
EDGES["__main__"] = {"cli"}
# Frameworks that a package may import; one module imports wandb, which comes in through YAML.
ALLOWED = {"training": {"lightning"}} | {
    package: {"lightning", "hydra", "omegaconf"}
    for package in ("launch", "jobs", "commands", "cli")
}


OF_ONE_MODULE = {"ssl_swin.training.wandb_logger": {"wandb"}}  # what nothing else may import


def package_of(module: str) -> str:
    """The room of a module; "" is the public face, which may name everything."""
    return module.partition(".")[2].partition(".")[0]


def modules(package: Path) -> dict[str, Path]:
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide their package"
            names.add(node.module)
    return names


def violations(module: str, source: str) -> list[str]:
    here = package_of(module)
    if not here:
        return []
    wrong = []
    for name in sorted(imports(source)):
        root, there = name.partition(".")[0], package_of(name)
        if root == "ssl_swin" and there not in {"", here} | EDGES[here]:
            wrong.append(f"{module} imports {name}")
        allowed = ALLOWED.get(here, set()) | OF_ONE_MODULE.get(module, set())
        if root in FRAMEWORKS - allowed:
            wrong.append(f"{module} imports {name}")
    return wrong


def test_edges__have_no_circle() -> None:
    order = list(EDGES)
    for package, allowed in EDGES.items():
        assert package not in allowed
        assert all(order.index(other) < order.index(package) for other in allowed), package


def test_imports__follow_the_edges() -> None:
    found = modules(PACKAGE)
    assert len(found) > 100
    assert {package_of(module) for module in found} == {"", *EDGES}
    assert [w for module, path in found.items() for w in violations(module, path.read_text())] == []


def reachable(package: str) -> set[str]:
    """Everything that a package may import, also through others."""
    return EDGES[package].union(*map(reachable, EDGES[package]))


def drawn_map() -> str:
    """The edges as a Mermaid diagram, without those that follow from others."""
    lines = ["flowchart TD"]
    for package in reversed(EDGES):
        implied = set().union(*map(reachable, EDGES[package]))
        lines += [f"    {package} --> {other}" for other in sorted(EDGES[package] - implied)]
    return "\n".join(lines)


def test_map_in_contributing__shows_the_edges() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert f"```mermaid\n{drawn_map()}\n```" in page, f"the map is now:\n{drawn_map()}"


def test_edges__are_all_used() -> None:
    used: dict[str, set[str]] = {package: set() for package in EDGES}
    for module, path in modules(PACKAGE).items():
        if package_of(module):
            used[package_of(module)] |= {package_of(name) for name in imports(path.read_text())}
    unused = {p: EDGES[p] - used[p] for p in ("encoders", "runs", "probing", "optim", "cli")}
    assert not any(unused.values()), unused


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ssl_swin.masking", "import hydra"),
        ("ssl_swin.errors", "from ssl_swin.files import make_folder"),
        ("ssl_swin.encoders.swin", "from ssl_swin.objectives.simmim import SimMIM"),
        ("ssl_swin.data.batch", "from ssl_swin.encoders.windows.visible import Binning"),
        ("ssl_swin.objectives.simmim", "def f():\n    import lightning.pytorch"),
        ("ssl_swin.objectives.simmim", "from ssl_swin.training.optim import run_length"),
        ("ssl_swin.probing.knn", "from ssl_swin.reporting.chart import draw"),
        ("ssl_swin.training.optim", "from omegaconf import DictConfig"),
        ("ssl_swin.training.optim", "from ssl_swin.launch.build import Run"),
        ("ssl_swin.launch.build", "from ssl_swin.jobs.pretrain import main"),
        ("ssl_swin.launch.build", "import wandb"),
    ],
)
def test_violations__finds_each_kind(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


PROBE = """
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
print(*sorted({frameworks} & sys.modules.keys()))
"""
TIMM_IMPORTS = {"wandb"}  # for itself, where it is installed


def loaded_frameworks(imported: list[str]) -> list[str]:
    code = PROBE.format(modules=imported, frameworks=FRAMEWORKS - TIMM_IMPORTS)
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return answer.stdout.split()


@pytest.mark.slow
def test_core__loads_no_framework_in_a_fresh_interpreter() -> None:
    assert loaded_frameworks([m for m in modules(PACKAGE) if package_of(m) in CORE]) == []


def test_loaded_frameworks__notices_one() -> None:
    assert loaded_frameworks(["hydra"]) == ["hydra", "omegaconf"]
