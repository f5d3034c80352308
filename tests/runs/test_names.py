import os
from pathlib import Path

import pytest

from ssl_swin.errors import UserError
from ssl_swin.runs.names import check_folder, check_name, folder_name


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a b",
        "--help",
        "$(touch x)",
        "`id`",
        "a=b",
        "[1]",
        "é漢",
        "~",
        "*",
        "a:b",
        ".a",
        "x" * 200,
    ],
)
def test_check_name__takes_whatever_a_folder_can_be_called(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "'' is empty"),
        ("  ", "'  ' is empty"),
        (".", "'.' is a path"),
        ("..", "'..' is a path"),
        ("/", "'/' holds /"),
        ("../../x", "'../../x' holds /"),
        ("a/b", "'a/b' holds /"),
        ("a\nb", r"'a\nb' holds control characters"),
        ("a\x1b[31m", r"'a\x1b[31m' holds control characters"),
        ("a\0", r"'a\x00' holds control characters"),
        ("a\udcff", r"'a\udcff' is no text"),
        ("é" * 101, f"'{'é' * 60}...' has 202 bytes, more than 200"),
    ],
)
def test_check_name__refuses(name: str, problem: str) -> None:
    with pytest.raises(UserError) as error:
        check_name(name)
    assert str(error.value) == (
        f"name must be the name of one folder, and {problem}: choose another name=, as "
        "name=swin_t_photos"
    )


@pytest.mark.parametrize("path", ["/", "//", "", " ", ".", "./", "x/..", "a\nb/c", "x" * 300, "~"])
def test_check_folder__refuses(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = str(tmp_path / "home") if path == "~" else path
    with pytest.raises(UserError, match=r"^run_dir='.*choose another run_dir=, as run_dir=runs/"):
        check_folder(path)
    assert os.listdir(tmp_path) == []


def test_check_folder__of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UserError) as error:
        check_folder(str(tmp_path))
    assert "holds other files and no run" in str(error.value)


@pytest.mark.parametrize("content", [(), ("config.yaml", "notes.txt"), (".config.yaml.x.tmp",)])
def test_check_folder__takes_new_empty_and_own_folders(
    tmp_path: Path, content: tuple[str, ...]
) -> None:
    for name in content:
        (tmp_path / name).touch()
    assert check_folder(str(tmp_path)) == tmp_path
    assert check_folder(str(tmp_path / "new")) == tmp_path / "new"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("seed=0", "seed-0"),
        ("optim.base_lr=1e-4,seed=0", "optim.base_lr-1e-4_seed-0"),
        ("+extra=1", "+extra-1"),
        ("model.depths=[1,1,1]", "model.depths-1_1_1_00000000"),
        ("backbone=runs/pretrain/x", "backbone-runs_pretrain_x_00000000"),
        ("..", "run_00000000"),
        ("", "run_00000000"),
    ],
)
def test_folder_name__is_readable(text: str, name: str) -> None:
    made = folder_name(text)
    assert made[: len(name) - 8] == name[: len(name) - 8]
    assert len(made) == len(name)


def test_folder_name__keeps_long_texts_apart_and_short() -> None:
    texts = [f"{','.join(f'some.setting_{i}={i}' for i in range(20))},last={j}" for j in range(5)]
    names = [folder_name(text) for text in texts]
    assert len(set(names)) == 5
    assert {len(name) for name in names} == {150}
    assert names[0].startswith("setting_0-0_setting_1-1_")


def test_folder_name__long_texts_lose_the_groups_of_their_keys() -> None:
    text = ",".join(f"trainer.some.group.of_settings.key{i}=1.5,model.x=a.b=c" for i in range(5))
    made = folder_name(text)
    assert made[:-9] == "_".join(f"key{i}-1.5_x-a.b-c" for i in range(5))


@pytest.mark.parametrize(
    ("one", "other"), [("x=a/b", "x=a_b"), ("x=[1,2]", "x=1,2"), ("x=a b", "x=a_b"), ("x=é", "x=è")]
)
def test_folder_name__different_texts_differ(one: str, other: str) -> None:
    assert folder_name(one) != folder_name(other)
