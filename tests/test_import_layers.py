"""The layers of CONTRIBUTING.md: an import may only point down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ssl_swin"
FRAMEWORKS = {"lightning", "hydra", "omegaconf", "wandb"}
L0 = {
    "ssl_swin",
    "ssl_swin.errors",
    "ssl_swin.files",
    "ssl_swin.masking",
    "ssl_swin.pixels",
    "ssl_swin.schedules",
    "ssl_swin.data.batch",
    "ssl_swin.data.inspection.duplicates",
    "ssl_swin.data.inspection.moments",
    "ssl_swin.data.order",
    "ssl_swin.data.records",
    "ssl_swin.data.rng",
    "ssl_swin.data.shards.tar",
    "ssl_swin.windows",
    "ssl_swin.windows.kernels",
    "ssl_swin.windows.layout",
    "ssl_swin.windows.packing",
}
# Frameworks that a layer may import; nobody imports wandb, it comes in through YAML.
ALLOWED = {0: set(), 1: set(), 2: {"lightning"}, 3: {"lightning", "hydra", "omegaconf"}}


def layer_of(module: str) -> int:
    if module in L0:
        return 0
    if module.startswith(("ssl_swin.launch", "ssl_swin.cli", "ssl_swin.commands")):
        return 3
    return 2 if module.startswith("ssl_swin.training") else 1


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
            assert node.level == 0, "relative imports hide their layer"
            names.add(node.module)
    return names


def violations(module: str, source: str) -> list[str]:
    layer = layer_of(module)
    wrong = []
    for name in sorted(imports(source)):
        root = name.partition(".")[0]
        if root == "ssl_swin" and layer_of(name) > layer:
            wrong.append(f"{module} (L{layer}) imports {name} (L{layer_of(name)})")
        if root in FRAMEWORKS - ALLOWED[layer]:
            wrong.append(f"{module} (L{layer}) imports {name}")
        if layer == 0 and root in ("timm", "torchvision", "webdataset", "PIL"):
            wrong.append(f"{module} (L0) imports {name}")
    return wrong


def test_imports__point_down() -> None:
    found = modules(PACKAGE)
    assert len(found) > 40
    assert L0 <= found.keys()
    assert [w for module, path in found.items() for w in violations(module, path.read_text())] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ssl_swin.masking", "import hydra"),
        ("ssl_swin.masking", "from timm.data import Mixup"),
        ("ssl_swin.schedules", "from ssl_swin.simmim import SimMIM"),
        ("ssl_swin.simmim", "def f():\n    import lightning.pytorch"),
        ("ssl_swin.simmim", "from ssl_swin.training.optim import run_length"),
        ("ssl_swin.training.optim", "from omegaconf import DictConfig"),
        ("ssl_swin.training.optim", "from ssl_swin.launch.setup import Run"),
        ("ssl_swin.launch.setup", "import wandb"),
    ],
)
def test_violations__finds_each_kind(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


CORE = [m for m in modules(PACKAGE) if layer_of(m) <= 1]
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


def test_core__loads_no_framework_in_a_fresh_interpreter() -> None:
    assert loaded_frameworks(CORE) == []


def test_loaded_frameworks__notices_one() -> None:
    assert loaded_frameworks(["hydra"]) == ["hydra", "omegaconf"]
