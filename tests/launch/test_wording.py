"""What Hydra and OmegaConf say of a command line, in our words."""

from pathlib import Path

import pytest

from ssl_swin.errors import UserError
from ssl_swin.jobs.in_process import pretrain
from ssl_swin.launch.composing import composed_for_user
from ssl_swin.launch.user_errors import only_user_errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("~data.bands", "~data.bands removes nothing: data.bands is null already"),
        ("~data.band", "there is no setting data.band, did you mean data.bands"),
        ("~trainer.max_epochs=7", "; remove it by ~trainer.max_epochs"),
        ("~name", "name cannot be removed: give it a value, as name=VALUE"),
        ("+seed=3", "there is a setting seed already; give its value without +, as seed=VALUE"),
        ("data.root@x=1", "@ stands behind a group alone"),
        ("seed=${x}", "seed cannot be worked out: ${x} names no setting"),
        ("seed=${seed}", "seed cannot be worked out: it refers to itself"),
        ("name=${oc.env:NOT_THERE}", "the environment has no variable NOT_THERE"),
        ("name=${foo:bar}", "there is no function ${foo:...}"),
        ("name=${", "${ begins a reference to another setting"),
        ("hydra.mode=x", "hydra.mode=x is no value"),
        ("experiment=[pretrain_small,nope]", "there is no experiment=nope"),
        ("seed=" + "9" * 5000, "seed"),
    ],
)
def test_composed_for_user__refuses_in_our_words(override: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        cfg = composed_for_user("pretrain", [override])
        raise UserError(f"seed is {type(cfg.seed).__name__}")  # refused later, by its type
    assert message in str(refusal.value)


@pytest.mark.parametrize("content", [b"a: [1\n b: }", b"\xa2\xff"])
def test_composed_for_user__a_file_that_is_no_yaml(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "pretrain_mine.yaml").write_bytes(content)
    with pytest.raises(UserError, match="a file of configurations is no YAML"):
        composed_for_user("pretrain", ["experiment=pretrain_mine"], config_dir=tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("model=swin_t", "overrides must be a list of texts"),
        ({"seed": 1}, "overrides must be a list of texts"),
        ([1], "overrides must be a list of texts"),
        (["--multirun"], "--multirun is a flag of the command line"),
    ],
)
def test_pretrain__overrides_of_another_type(overrides: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pretrain(overrides)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [
        "Invalid plugin 'os.system': not the hydra_plugins package",
        "Hydra sweeper is not configured",
    ],
)
def test_only_user_errors__of_hydras_plugins(said: str) -> None:
    with pytest.raises(
        UserError, match=r"^hydra.sweeper or hydra.launcher: .*choose one by hydra/"
    ):
        with only_user_errors("pretrain", None):
            raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        with only_user_errors("pretrain", None):
            raise RuntimeError("a fault of ours")
