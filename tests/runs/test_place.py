"""A folder that is not the one that it was is noticed, whatever is there instead."""

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_swin.disk_errors import DiskError, FolderGoneError
from ssl_swin.runs.folder import RunFolder
from ssl_swin.runs.place import Place
from ssl_swin.runs.what_stays import telling_what_stays


def made_anew(folder: Path) -> None:
    """Many file systems give the new folder the number of the old one."""
    shutil.rmtree(folder)
    folder.mkdir()


def replaced_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def replaced_by_a_link(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("copy"))
    shutil.rmtree(folder)
    folder.symlink_to("copy")


GONE = {
    "removed": shutil.rmtree,
    "moved": lambda folder: folder.rename(folder.with_name("elsewhere")),
    "the one around it moved": lambda folder: folder.parent.rename(f"{folder.parent}_elsewhere"),
    "made anew": made_anew,
    "a file": replaced_by_a_file,
    "a copy": replaced_by_a_link,
}


@pytest.mark.parametrize("how", GONE)
def test_check__notices(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "runs/run"
    folder.mkdir(parents=True)
    place = Place(folder)
    place.check()  # nothing was noted
    place.note()
    place.check()
    (folder / "more").mkdir()
    place.check()
    GONE[how](folder)
    for _ in range(2):
        with pytest.raises(FolderGoneError, match=f"folder {folder} was moved or removed in mid"):
            place.check()


def test_check__is_content_with_a_folder_that_was_put_back(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    place = Place(folder)
    place.note()
    folder.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(folder)
    place.check()


def test_place__holds_the_folder_no_longer_than_it_lives(tmp_path: Path) -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    places = [Place(tmp_path) for _ in range(9)]
    for place in places:
        place.note()
        place.note()
    assert len(os.listdir("/proc/self/fd")) == before + 9
    del place, places
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("happens", [shutil.rmtree, moved])
def test_what_stays__is_where_the_folder_went(
    tmp_path: Path, happens: Callable[[Path], None]
) -> None:
    run = RunFolder(tmp_path / "run")
    run.start({"seed": 0}, {})
    with pytest.raises(DiskError) as told, telling_what_stays(run, lambda: 7):
        happens(run.path)
        run.place.check()
    assert str(told.value).splitlines()[1].startswith("stopped at step 7; with the folder put back")
    assert not run.path.exists()
