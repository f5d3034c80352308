import os
from pathlib import Path

import pytest
from PIL import Image

from ssl_swin import __version__
from ssl_swin.cli import COMMANDS, main

LEVELS = range(4)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with four images in a class folder, and links that lead nowhere."""
    monkeypatch.chdir(tmp_path)
    Path("photos/a").mkdir(parents=True)
    for level in LEVELS:
        Image.new("RGB", (8, 8), (level, 0, 0)).save(f"photos/a/{level}.png")
    for name in ("nowhere", "nowhere.yaml", "nowhere.png"):
        os.symlink("absent", name)
    Path("weights.pth").write_bytes(b"")
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command line is told that ends with status 2."""
    before = sorted(os.walk("."))
    status = main(words)
    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert len(printed.err.splitlines()) == 1
    assert sorted(os.walk(".")) == before, "it wrote something"
    return printed.err.strip()


@pytest.mark.parametrize(
    ("line", "told"),
    {
        "pakc photos out": "ssl-swin: there is no command 'pakc', did you mean pack? it is one of ",
        "pretrian": "ssl-swin: there is no command 'pretrian', did you mean pretrain? ",
        "": "ssl-swin: COMMAND must be given; see ssl-swin --help",
        "pack photos out --verfy": "there is no option --verfy, did you mean --verify?",
        "pack photos out --xyz=3": "there is no option --xyz; see ssl-swin pack --help",
        "pack photos out more": "'more' is one argument too many",
        "pack": "images, out must be given",
        "import": "ssl-swin: file, out must be given; see ssl-swin import --help",
        "stats photos --n": "--n could be any of --nodata, --no-labels, --no-splits, --no-masks",
        "pack photos out --verify=1": "--verify takes no value, got '1'",
        "pack photos out --seed": "--seed needs a value",
        "import weights.pth out --mean": "--mean needs at least one value",
        "pack photos out --workers x": "--workers must be a whole number in [0, 1024], got 'x'",
        "pack photos out --workers -1": "--workers must be a whole number in [0, 1024], got '-1'",
        "pack photos out --seed 1.5": "--seed must be a whole number in [0, 4294967295], got '1.5'",
        "pack photos out --val-ratio 7": "--val-ratio must be a number in [0, 1), got '7'",
        "pack photos out --val-ratio nan": "--val-ratio must be a number in [0, 1), got 'nan'",
        "pack photos out --jpeg-quality 0": "--jpeg-quality must be a whole number in [1, 100]",
        "pack photos out --channel-axis frist": "--channel-axis cannot be 'frist', did you mean "
        "first? it is one of first, last",
        "pack photos out --fill x": "--fill must be a number, or numbers separated by commas",
        "stats photos --seed -1": "--seed must be a whole number in [0, 4294967295], got '-1'",
        "stats photos --bands a": "--bands must be whole numbers from 0, separated by commas",
        "check photos --max-image-pixels 0": "--max-image-pixels must be a whole number of at leas",
        "show --out a.png --epoch -1": "--epoch must be a whole number of at least 0, got '-1'",
        "show --out a.png --images 0": "--images must be a whole number of at least 1, got '0'",
        "import weights.pth out --img-size-px 1000000": "--img-size-px must be a whole number in "
        "[1, 16384], got '1000000'",
        "import weights.pth out --window-size 0": "--window-size must be a whole number of at lea",
        "import weights.pth out --pretrained-window-sizes 0": "--pretrained-window-sizes must be",
        "import weights.pth out --std 0": "--std must be a number above 0, got '0'",
        "replay run --step -1": "--step must be a whole number of at least 0, got '-1'",
    }.items(),
)
def test_main__option_that_is_not_allowed(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refusal(capsys, *line.split())


@pytest.mark.parametrize("text", ["", " ", "a\0b"])
@pytest.mark.parametrize(
    "words",
    [
        *(["pack", "photos", "TEXT"], ["pack", "TEXT", "out"], ["check", "TEXT"]),
        *(["stats", "TEXT"], ["index", "TEXT"], ["index", "photos", "--out", "TEXT"]),
        *(["import", "TEXT", "out"], ["import", "weights.pth", "out", "--network", "TEXT"]),
        *(["export", "TEXT", "out", "--to", "timm"], ["push", "TEXT", "me/it"]),
        *(["recipes", "--config-dir", "TEXT"], ["show", "--out", "TEXT"], ["replay", "TEXT"]),
    ],
)
def test_main__text_that_is_empty_or_holds_a_nul(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refusal(capsys, *(text if word == "TEXT" else word for word in words))
    assert ("holds a NUL character, got 'a\\x00b'" if text.strip() else " is empty; see") in told


@pytest.mark.parametrize(
    "line",
    [
        "pack photos nowhere",
        "import weights.pth nowhere",
        "export photos nowhere --to timm",
        "stats photos --write nowhere.yaml",
        "show --out nowhere.png",
        "check photos --report nowhere",
        "index photos --out nowhere",
    ],
)
def test_main__link_that_leads_nowhere(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a link to absent, which is not there" in refusal(capsys, *line.split())


def test_every_command__knows_its_options_by_the_nearest_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2].strip("_").replace("_", "-")
        told = refusal(capsys, name, "--hlep")
        assert told.endswith(f"; see ssl-swin {name} --help")


def test_pack__places_that_are_no_folder_of_their_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    for place in ("/", str(folder)):
        told = refusal(capsys, "pack", "photos", place)
        assert f"{place} is no folder of its own: shards would lie among all else" in told


def test_pack__val_labels_beside_classes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("names.txt").write_text("a\n")
    told = refusal(capsys, "pack", "photos", "out", "--val-labels", "names.txt")
    assert (
        "--val-labels is for images without labels, and those of train have classes, from the only"
        in told
    )
    assert "--no-labels" not in told


def test_looping_link_is_no_image(capsys: pytest.CaptureFixture[str]) -> None:
    os.symlink("self", "photos/self")
    os.symlink("self", "photos/a/self")
    assert main(["pack", "photos", "out", "--workers", "0"]) == 0
    assert "2 without an ending (self)" in capsys.readouterr().out
    assert main(["stats", "photos", "--workers", "0"]) == 0
    assert "train: 4 images\n" in capsys.readouterr().out


def test_check__one_is_singular(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", "photos", "out", "--workers", "0", "--shard-samples", "9"]) == 0
    assert "val: 1 image in 1 shard, held out of train" in capsys.readouterr().out
    assert main(["check", "out", "--workers", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 3 images in 1 shard",
        "val: 1 image in 1 shard",
        "sound: the shards are what the index says, 4 images decoded",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\x00\x01", "mine.yaml is no YAML: 'utf-8' codec can't decode byte 0xff"),
        (b"a: [1\nb: {c\n", "mine.yaml is no YAML: line 2: expected ',' or ']', but got ':'"),
        (b"a: \0", "mine.yaml is no YAML: unacceptable character"),
    ],
)
def test_recipes__broken_file(
    content: bytes, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my/experiment").mkdir(parents=True)
    Path("my/experiment/mine.yaml").write_bytes(content)
    assert told in refusal(capsys, "recipes", "--config-dir", "my")


def test_recipes__folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, "recipes", "--config-dir", "absent")
    assert told == "ssl-swin: --config-dir: there is no folder absent"


def test_main__path_that_the_system_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert "File name too long" in refusal(capsys, "check", 300 * "a")


def test_version__is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--version"]) == 0
    assert capsys.readouterr().out == f"ssl_swin {__version__}\n"
