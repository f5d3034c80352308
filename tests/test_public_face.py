"""What `import ssl_swin` offers: every name, no time, and all that configurations name."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.loggers import WandbLogger

import ssl_swin
from ssl_swin.weights.backbone import save_backbone

CONF = Path(ssl_swin.__file__).parent / "conf"
FOREIGN = ("lightning.", "optuna.", "hydra_plugins.")


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


def test_import__takes_under_a_third_of_a_second() -> None:
    code = "import time; t = time.perf_counter(); import ssl_swin; print(time.perf_counter() - t)"
    answers = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        for _ in range(3)
    ]
    assert min(float(answer.stdout) for answer in answers) < 0.3


def test_load_backbone__takes_an_artifact_of_wandb(
    tiny_encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny_encoder()
    moments = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.1]}

    def download(artifact: str, save_dir: str, *, use_artifact: bool) -> str:
        """Stands for W&B's server."""
        assert (artifact, use_artifact) == ("me/swin/good:v3", False)
        save_backbone(Path(save_dir) / "backbone", encoder, card="", **moments)
        return save_dir

    monkeypatch.setattr(WandbLogger, "download_artifact", staticmethod(download))
    monkeypatch.setenv("WANDB_MODE", "online")
    backbone = ssl_swin.load_backbone("wandb:me/swin/good:v3", img_size_px=128, cache=tmp_path)
    assert backbone.encoder.img_size_px == (128, 128)
    assert list(backbone.mean) == moments["mean"]
    name = "layers.1.blocks.0.mlp.fc1.weight"
    state = backbone.encoder.model.state_dict()
    assert state[name].equal(encoder.model.state_dict()[name])
    with pytest.raises(ssl_swin.UserError, match="as wandb:ENTITY/PROJECT/NAME:VERSION"):
        ssl_swin.load_backbone("wandb:swin/good", cache=tmp_path)
