import os
import stat
import time

import pytest

from ssl_swin.errors import UserError
from ssl_swin.files import (
    TEMPORARY,
    atomic_path,
    make_folder,
    remove_leftovers,
    removed_if_empty,
    set_aside,
    temporary_folder,
    write_atomically,
)


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.txt"
    path.write_text("old")
    return path


@pytest.mark.parametrize(
    ("content", "stored"), [("naïve\n", b"na\xc3\xafve\n"), (b"\x00\xff", b"\x00\xff"), ("", b"")]
)
def test_write_atomically__text_is_utf8_and_bytes_are_bytes(results, content, stored):
    write_atomically(results, content)
    assert results.read_bytes() == stored
    assert os.listdir(results.parent) == ["results.txt"]


def test_write_atomically__creates_the_folder(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "new.txt", "new")
    assert (tmp_path / "a" / "b" / "new.txt").read_text() == "new"


def test_write_atomically__gives_the_permissions_of_an_ordinary_file(tmp_path):
    (tmp_path / "ordinary").touch()
    write_atomically(tmp_path / "ours", "")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "ours")]
    assert modes[0] == modes[1]


def test_atomic_path__the_old_content_stays_until_the_end(results):
    with atomic_path(results) as temporary:
        temporary.write_text("new")
        assert results.read_text() == "old"
        assert temporary.parent == results.parent  # a rename across file systems is not atomic
    assert results.read_text() == "new"
    assert not temporary.exists()


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt])
def test_atomic_path__an_interruption_leaves_everything_as_it_was(results, interruption):
    with pytest.raises(interruption), atomic_path(results) as temporary:
        temporary.write_text("half of the new")
        raise interruption
    assert results.read_text() == "old"
    assert os.listdir(results.parent) == ["results.txt"]


def test_atomic_path__a_failed_rename_leaves_no_temporary_file(tmp_path):
    with pytest.raises(OSError), atomic_path(tmp_path / "folder") as temporary:
        (tmp_path / "folder" / "occupied").mkdir(parents=True)
        temporary.write_text("new")
    assert os.listdir(tmp_path) == ["folder"]


def test_atomic_path__is_on_the_disk_before_it_gets_its_name(results, monkeypatch):
    events = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, do=original: (events.append(name), do(*a))
        )
    write_atomically(results, "new")
    assert events == ["fsync", "replace", "fsync"]  # the file, and at last the folder


def test_make_folder__creates_parents_and_accepts_what_is_there(tmp_path):
    folder = make_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert make_folder(str(folder)) == folder


@pytest.mark.parametrize("below", ["", "sub/folder"])
def test_make_folder__a_file_is_in_the_way(results, below):
    with pytest.raises(UserError, match=r"cannot create the folder .*results\.txt"):
        make_folder(results / below)


def test_write_atomically__the_folder_is_a_file(results):
    with pytest.raises(UserError, match="cannot create the folder"):
        write_atomically(results / "new.txt", "new")
    assert results.read_text() == "old"


def test_write_atomically__the_name_is_too_long(tmp_path):
    with pytest.raises(UserError, match=f"cannot write .*{'x' * 300}"):
        write_atomically(tmp_path / ("x" * 300), "new")


def test_make_folder__no_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # chmod does not stop root
    with pytest.raises(UserError, match=f"no permission to write to the folder {tmp_path}"):
        make_folder(tmp_path)


def test_atomic_path__a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match=f"cannot write the file {tmp_path}: it is a folder"):
        write_atomically(tmp_path, "x")
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))


def test_removed_if_empty__only_what_was_made_and_has_nothing_in_it(tmp_path):
    old, full, new = (tmp_path / name for name in ("old", "full", "new"))
    old.mkdir()
    for folder in (old, full, new):
        with pytest.raises(UserError), removed_if_empty(folder):
            make_folder(folder)
            if folder == full:
                (folder / "a").touch()
            raise UserError("nothing came of it")
    assert sorted(tmp_path.iterdir()) == [full, old]


def test_remove_leftovers__of_killed_processes_files_and_folders_alike(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    folder = checkpoints / ".last.ckpt.a1b2c3d4.tmp"
    folder.mkdir(parents=True)
    (folder / "part").write_text("half")
    (checkpoints / ".best.ckpt.a1b2c3d4.tmp").write_text("half")
    (checkpoints / "last.ckpt").mkdir()
    assert remove_leftovers(tmp_path, before=0) == []
    assert len(remove_leftovers(tmp_path, before=time.time() + 1)) == 2
    assert [path.name for path in checkpoints.iterdir()] == ["last.ckpt"]


def test_temporary_folder__goes_unless_it_was_given_a_name(tmp_path):
    with temporary_folder(tmp_path / "new") as folder:
        (folder / "part").write_text("whole")
        assert TEMPORARY.fullmatch(folder.name)
        folder.rename(tmp_path / "new")
    with pytest.raises(KeyError), temporary_folder(tmp_path / "other") as folder:
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_set_aside__a_folder_after_another(tmp_path):
    for _ in range(2):
        (tmp_path / "last.ckpt").mkdir()
        (tmp_path / "last.ckpt/part").write_text("damaged")
        set_aside(tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt.damaged"]
