import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers import ShardServer, serve, serve_s3

from ssl_swin.cli import main
from ssl_swin.data.remote.index import expand_names, fetch_index, index_remote, list_shards
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.shards.indexing import build_index
from ssl_swin.errors import UserError

NAMES = ["train-000000.tar", "train-000001.tar", "train-000002.tar", "val-000000.tar"]
CLASSES = ("cat", "dog")


def write_shard(path: Path, num_samples: int) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(num_samples):
            for name, content in ((f"{number}.jpg", bytes(100 * number)), (f"{number}.cls", b"1")):
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards without an index."""
    folder = tmp_path_factory.mktemp("bare")
    for number, name in enumerate(NAMES):
        write_shard(folder / name, number + 2)
    return folder


@pytest.fixture
def indexed(bare: Path, tmp_path: Path) -> Path:
    """The same with an index beside them."""
    folder = tmp_path / "indexed"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes((bare / name).read_bytes())
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    build_index(folder, progress=False)
    return folder


@pytest.fixture
def server(indexed: Path) -> Iterator[ShardServer]:
    with serve(indexed) as server:
        yield server


@pytest.fixture(autouse=True)
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_swin.data.remote.index._FIRST_WAIT_S", 0.01)


def index_files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("index.json", "index.bin")}


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.slow
def test_fetch_index__is_the_one_there(server: ShardServer, indexed: Path, tmp_path: Path) -> None:
    server.num_refusals = 2
    fetch_index(server.root, tmp_path / "index")
    assert index_files(tmp_path / "index") == index_files(indexed)
    assert files_in(tmp_path / "index") == ["index.bin", "index.json"]
    index = load_index(indexed, tmp_path / "index", check_shards=False)
    assert {split: index.num_samples(split) for split in index.splits} == {"train": 9, "val": 5}
    assert index.fingerprint == load_index(indexed).fingerprint


@pytest.mark.slow
def test_fetch_index__array_cut_short(indexed: Path, tmp_path: Path) -> None:
    (indexed / "index.bin").write_bytes((indexed / "index.bin").read_bytes()[:-16])
    message = r"cannot fetch index.bin from file:.*: got 208 of 224 bytes, gave up after 5 tries"
    with pytest.raises(UserError, match=message):
        fetch_index(f"file://{indexed}", tmp_path / "index")


def test_fetch_index__brings_the_array_once(server: ShardServer, tmp_path: Path) -> None:
    fetch_index(server.root, tmp_path / "index")
    fetch_index(server.root, tmp_path / "index")
    assert server.requests_of == {"index.json": 2, "index.bin": 1}


def test_fetch_index__follows_a_change(server: ShardServer, indexed: Path, tmp_path: Path) -> None:
    fetch_index(server.root, tmp_path / "index")
    write_shard(indexed / NAMES[0], 8)
    build_index(indexed, progress=False)
    fetch_index(server.root, tmp_path / "index")
    assert index_files(tmp_path / "index") == index_files(indexed)


def test_fetch_index__array_of_another(server: ShardServer, indexed: Path, tmp_path: Path) -> None:
    content = bytearray((indexed / "index.bin").read_bytes())
    content[5] ^= 1
    (indexed / "index.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"index.bin of http.* is not the one that its index.json"):
        fetch_index(server.root, tmp_path / "index")
    assert not (tmp_path / "index" / "index.json").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "ssl-swin-shards", "version": 1}'])
def test_fetch_index__damaged(
    server: ShardServer, indexed: Path, tmp_path: Path, content: str
) -> None:
    (indexed / "index.json").write_text(content)
    with pytest.raises(UserError, match=r"index.json of http.*damaged or of an older .*--out DIR"):
        fetch_index(server.root, tmp_path / "index")


def test_fetch_index__none_there(bare: Path, tmp_path: Path) -> None:
    message = r"fetch index.json .*make one: ssl-swin index http.* --out DIR --shards 'train-{000"
    with serve(bare) as server, pytest.raises(UserError, match=message):
        fetch_index(server.root, tmp_path / "index")


def test_index_remote__equals_the_local_index(bare: Path, tmp_path: Path) -> None:
    build_index(bare, tmp_path / "local", progress=False)
    with serve(bare) as server:
        server.cut = True
        index = index_remote(server.root, NAMES, tmp_path / "out", num_workers=2, progress=False)
    assert index_files(tmp_path / "out") == index_files(tmp_path / "local")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.bin", "index.json"]
    assert np.array_equal(index.extents("val"), load_index(bare, tmp_path / "local").extents("val"))


@pytest.mark.slow
def test_index_remote__s3(bare: Path, tmp_path: Path) -> None:
    build_index(bare, tmp_path / "local", progress=False)
    with serve_s3(bare) as root:
        assert list_shards(root) == NAMES
        index_remote(root, list_shards(root), tmp_path / "out", progress=False)
        with pytest.raises(UserError, match=r"cannot fetch index.json from s3:.* make one"):
            fetch_index(root, tmp_path / "index")
    assert index_files(tmp_path / "out") == index_files(tmp_path / "local")


def test_index_remote__damaged_shard(bare: Path, tmp_path: Path) -> None:
    cut = f"pipe:head -c 3000 {bare}/{{name}}"
    with pytest.raises(UserError, match=r"fetched from pipe.*train-000000.tar: .*truncated"):
        index_remote(cut, NAMES, tmp_path / "out", num_workers=2, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../a.tar", "part//a.tar", "/a.tar"])
def test_index_remote__shard_that_lies_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"must lie below https://host/set, but '{name}' leads"):
        index_remote("https://host/set", [name], tmp_path / "out")


def test_list_shards__of_a_page(server: ShardServer) -> None:
    assert list_shards(server.root) == NAMES


def test_list_shards__of_folders_that_name_splits(bare: Path, tmp_path: Path) -> None:
    for name in ("train/0.tar", "val/1.tar", "val/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((bare / NAMES[0]).read_bytes())
    with serve(tmp_path) as server:
        assert list_shards(server.root) == ["train/0.tar", "val/1.tar"]
        (tmp_path / "val").rename(tmp_path / "flowers")
        message = rf"folders that do and name no split: flowers\. Give .*{server.root}/flowers, or"
        with pytest.raises(UserError, match=message):
            list_shards(server.root)


def test_list_shards__that_are_compressed(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar.gz").write_bytes(b"\x1f\x8b")
    with serve(tmp_path) as server:
        message = rf"of {server.root} are compressed, such as train-0\.tar\.gz: .*\n.*reader=stream"
        with pytest.raises(UserError, match=message):
            list_shards(server.root)
        message = r"shard train-0\.tar\.gz of .* is compressed: .*Decompress it there, or read"
        with pytest.raises(UserError, match=message):
            index_remote(server.root, ["train-0.tar.gz"], tmp_path / "out", progress=False)
        assert server.requests_of["train-0.tar.gz"] == 1  # and is not fetched once more


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("pipe:cat {name}", r"a pipe cannot list its shards.*--shards"),
        ("file:///no/such/folder", r"cannot list file:.*FileNotFoundError.*--shards"),
    ],
)
def test_list_shards__cannot(root: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list_shards(root)


def test_list_shards__none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lists no \*.tar"):
        list_shards(f"file://{tmp_path}")


def test_expand_names() -> None:
    assert expand_names("train-{08..10}.tar") == ["train-08.tar", "train-09.tar", "train-10.tar"]
    assert expand_names("{train,val}-{0..1}.tar") == [
        "train-0.tar",
        "train-1.tar",
        "val-0.tar",
        "val-1.tar",
    ]
    assert expand_names("a.tar") == ["a.tar"]
    with pytest.raises(UserError, match=r"cannot expand the shard names 'train-{0..2'"):
        expand_names("train-{0..2")


def test_command__url(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "classes.txt").write_text("cat\ndog\n")
    with serve(bare) as server:
        assert main(["index", server.root, "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: images 9, shards 3",
        "val: images 5, shards 1",
        "classes: 2",
        f"next: ssl-swin pretrain data=remote data.root={server.root} data.index_dir={out} "
        "batch_size=8",
    ]
    assert json.loads((out / "index.json").read_text())["classes"] == list(CLASSES)


def test_command__pipe(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = f"pipe:cat {bare}/{{name}}"
    arguments = ["index", root, "--out", str(tmp_path), "--shards", "train-{000000..000001}.tar"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: images 5, shards 2",
        "classes: none",
        "note: labels are numbers up to 1, and their classes have no names: write classes.txt "
        "to --out, a name per line, and index them anew",
        f"next: ssl-swin pretrain data=remote 'data.root=\"{root}\"' data.index_dir={tmp_path} "
        "batch_size=4",
    ]


def test_command__folder(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(bare), "--out", str(tmp_path), "--workers", "0"]) == 0
    told = f"next: ssl-swin pretrain data=shards data.root={bare} data.index_dir={tmp_path}"
    told += " batch_size=8"
    assert capsys.readouterr().out.splitlines()[-1] == told
    assert load_index(bare, tmp_path).num_samples("train") == 9
    assert files_in(bare) == NAMES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["https://host/set"], "say where to write the index of https://host/set: --out DIR"),
        (["no/such/folder"], "there is no folder no/such/folder"),
        (["no/such/folder", "--shards", "a.tar"], "--shards is for a URL"),
        (
            ["no/such/folder", "--workers", "-1"],
            "--workers must be a whole number in [0, 1024], got",
        ),
    ],
)
def test_command__mistakes(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", *arguments]) == 2
    assert message in capsys.readouterr().err
