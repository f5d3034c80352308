"""What `import ssl_swin` offers: every name, no time, and all that configurations name."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import ssl_swin

CONF = Path(ssl_swin.__file__).parent / "conf"
FOREIGN = ("lightning.",)


def test_import__loads_nothing_heavy() -> None:
    code = "import ssl_swin, sys; print(*{'torch', 'timm', 'hydra', 'lightning'} & {*sys.modules})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout.split()) == (0, [])


@pytest.mark.parametrize("name", ssl_swin.__all__)
def test_name__is_there_and_documented(name: str) -> None:
    thing = getattr(ssl_swin, name)
    assert thing.__name__ == name
    assert inspect.getdoc(thing)
    assert name in dir(ssl_swin)


def test_name__unknown() -> None:
    with pytest.raises(AttributeError, match="'ssl_swin' has no attribute 'SimMin'"):
        _ = ssl_swin.SimMin


def test_configurations__name_only_the_public_face() -> None:
    targets = {
        target
        for path in CONF.rglob("*.yaml")
        for target in re.findall(r"_target_: (\S+)", path.read_text())
    }
    ours = {target for target in targets if not target.startswith((*FOREIGN, "null"))}
    assert "ssl_swin.SimMIM" in ours
    assert ours <= {f"ssl_swin.{name}" for name in ssl_swin.__all__}


@pytest.mark.parametrize("objective", ["simmim", "simmim_sparse"])
def test_objective__has_the_defaults_of_its_configuration(objective: str) -> None:
    """A default in Python and a value in YAML would be two homes, if they could differ."""
    settings = yaml.safe_load((CONF / "objective" / f"{objective}.yaml").read_text())
    target = getattr(ssl_swin, settings.pop("_target_").removeprefix("ssl_swin."))
    settings.pop("_partial_")
    parameters = inspect.signature(target).parameters
    assert settings == {n: p.default for n, p in parameters.items() if n != "encoder"}
