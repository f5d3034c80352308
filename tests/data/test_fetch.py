import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers import ShardServer, serve, serve_s3

from ssl_swin.data.remote.fetch import fetch, is_remote
from ssl_swin.errors import UserError

NAMES = [f"train-{number:06d}.tar" for number in range(6)]
NUM_BYTES = 30_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for seed, name in enumerate([*NAMES, "it's 100% #1.tar"]):
        (folder / name).write_bytes(np.random.default_rng(seed).bytes(NUM_BYTES))
    return folder


@pytest.fixture
def server(files: Path) -> Iterator[ShardServer]:
    with serve(files) as server:
        yield server


def fetched(root: str, name: str, folder: Path, num_tries: int = 3) -> bytes:
    out = folder / "out"
    fetch(root, name, out, num_bytes=NUM_BYTES, num_tries=num_tries, first_wait_s=0.01)
    return out.read_bytes()


@pytest.mark.parametrize(
    ("root", "remote"),
    [
        ("https://host/set", True),
        ("s3://bucket/set", True),
        ("pipe:cat set/{name}", True),
        ("data/set", False),
        ("/data/pipe:set", False),
        ("C:/set", False),
    ],
)
def test_is_remote(root: str, remote: bool) -> None:
    assert is_remote(root) is remote


@pytest.mark.parametrize("name", [NAMES[0], "it's 100% #1.tar"])
def test_fetch__http(server: ShardServer, files: Path, tmp_path: Path, name: str) -> None:
    assert fetched(server.root, name, tmp_path) == (files / name).read_bytes()
    assert fetched(f"{server.root}/", name, tmp_path) == (files / name).read_bytes()
    assert server.requests_of == {name: 2}


@pytest.mark.parametrize("name", [NAMES[0], "it's 100% #1.tar"])
def test_fetch__pipe(files: Path, tmp_path: Path, name: str) -> None:
    assert fetched(f"pipe:cat {files}/{{name}}", name, tmp_path) == (files / name).read_bytes()
    piped = f"pipe:cat {files}/{{name}} | gzip | gunzip"
    assert fetched(piped, name, tmp_path) == (files / name).read_bytes()


def test_fetch__s3(files: Path, tmp_path: Path) -> None:
    with serve_s3(files) as root:
        for name in (NAMES[0], "it's 100% #1.tar"):
            assert fetched(root, name, tmp_path) == (files / name).read_bytes()
        with pytest.raises(UserError, match=r"fetch absent.tar from s3://bucket/set: .* 1 try"):
            fetched(root, "absent.tar", tmp_path)


def test_fetch__transfers_cut_short(server: ShardServer, files: Path, tmp_path: Path) -> None:
    server.cut = True
    for name in NAMES:
        assert fetched(server.root, name, tmp_path) == (files / name).read_bytes()
    assert [server.requests_of[name] for name in NAMES] == [1, 1, 2, 1, 1, 2]


def test_fetch__refused_at_first(server: ShardServer, files: Path, tmp_path: Path) -> None:
    server.num_refusals = 2
    began = time.monotonic()
    assert fetched(server.root, NAMES[0], tmp_path) == (files / NAMES[0]).read_bytes()
    assert server.requests_of == {NAMES[0]: 3}
    assert time.monotonic() - began >= 0.01 + 0.02


def test_fetch__refused_for_good(server: ShardServer, tmp_path: Path) -> None:
    server.num_refusals = 10
    with pytest.raises(UserError, match=r"got 0 of 30000 bytes, gave up after 3 tries .*503"):
        fetched(server.root, NAMES[0], tmp_path)
    assert server.requests_of == {NAMES[0]: 3}


def test_fetch__absent_is_not_tried_again(server: ShardServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent.tar from http.* after 1 try \(FileNotFoundError"):
        fetched(server.root, "absent.tar", tmp_path)
    assert server.requests_of == {"absent.tar": 1}


def test_fetch__dead_server(files: Path, tmp_path: Path) -> None:
    with serve(files) as server:
        root = server.root
    message = rf"train-000000.tar from {root}: got 0 of 30000 .* 3 tries .*Cannot connect"
    with pytest.raises(UserError, match=message):
        fetched(root, NAMES[0], tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo no credentials >&2; : {name}; exit 1", "got 0 .* 3 tries .*status 1: no credential"),
        ("head -c 15000 FILES/{name}", "got 15000 of 30000 bytes, gave up after 3 tries"),
        ("cat FILES/{name} FILES/{name}", "got 60000 of 30000 bytes"),
        ("no-such-program {name}", "status 127: .*not found"),
        ("cat FILES/train-000000.tar", r"after 1 try \(ValueError: .*by {name}"),
    ],
)
def test_fetch__pipe_that_fails(files: Path, tmp_path: Path, command: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fetched("pipe:" + command.replace("FILES", str(files)), NAMES[0], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fetch__url_that_nothing_opens(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"after 1 try \(ValueError: Protocol not known: gopher"):
        fetched("gopher://host/set", NAMES[0], tmp_path)
