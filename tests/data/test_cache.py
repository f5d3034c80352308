import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from servers import ShardServer, serve

from ssl_swin.data.remote.cache import ShardCache
from ssl_swin.data.shards.index_file import Shard
from ssl_swin.errors import UserError

NUM_BYTES = 30_000
PREFETCHER = "shard-prefetcher"
SHARDS = [Shard(f"train-{number:06d}.tar", NUM_BYTES, 1) for number in range(9)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for seed, shard in enumerate(SHARDS):
        (folder / shard.name).write_bytes(np.random.default_rng(seed).bytes(NUM_BYTES))
    return folder


@pytest.fixture
def server(files: Path) -> Iterator[ShardServer]:
    with serve(files) as server:
        yield server


def make_cache(root: str, folder: Path, num_shards: float = 100, num_tries: int = 3) -> ShardCache:
    limit_bytes = int(num_shards * NUM_BYTES)
    return ShardCache(root, folder, limit_bytes=limit_bytes, num_tries=num_tries, first_wait_s=0.01)


def held(cache: ShardCache) -> list[int]:
    """Numbers of the shards in the cache, in order; fails on any other file."""
    names = [shard.name for shard in SHARDS]
    return sorted(names.index(path.name) for path in cache.folder.iterdir() if path.is_file())


def wait_for(cache: ShardCache, numbers: list[int]) -> None:
    wanted = {SHARDS[number].name for number in numbers}
    wait_until(lambda: {path.name for path in cache.folder.iterdir() if path.is_file()} == wanted)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def in_processes(work: Callable[[int], None], num_processes: int) -> None:
    """Forks, as the workers of a DataLoader are."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(number,)) for number in range(num_processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=20)
    assert [process.exitcode for process in processes] == [0] * num_processes


def check(cache: ShardCache, files: Path, shards: Sequence[Shard]) -> None:
    for shard in shards:
        assert cache.path(shard).read_bytes() == (files / shard.name).read_bytes()


def test_path__gives_the_bytes_and_keeps_them(
    server: ShardServer, files: Path, tmp_path: Path
) -> None:
    check(make_cache(server.root, tmp_path), files, SHARDS)
    check(make_cache(f"{server.root}/", tmp_path), files, SHARDS)  # a later run
    assert server.requests_of == {shard.name: 1 for shard in SHARDS}


def test_path__many_processes_fetch_each_shard_once(
    server: ShardServer, files: Path, tmp_path: Path
) -> None:
    server.cut = True
    cache = make_cache(server.root, tmp_path)
    check(cache, files, SHARDS[:1])  # so that the children inherit a used connection

    def work(number: int) -> None:
        cache.prefetch(SHARDS[number:])
        check(cache, files, SHARDS)

    in_processes(work, 4)
    counts = sorted(server.requests_of[shard.name] for shard in SHARDS)
    assert counts == [1] * 6 + [2] * 3  # twice those that were cut short
    assert held(cache) == list(range(9))


def test_path__file_of_another_length_is_fetched_anew(files: Path, tmp_path: Path) -> None:
    cache = make_cache(f"pipe:cat {files}/{{name}}", tmp_path)
    (cache.folder / SHARDS[0].name).write_bytes(bytes(NUM_BYTES - 1))
    check(cache, files, SHARDS[:1])


def test_path__two_sets_do_not_mix(files: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / SHARDS[0].name).write_bytes(bytes(NUM_BYTES))
    check(make_cache(f"file://{files}", tmp_path / "cache"), files, SHARDS[:1])
    check(make_cache(f"file://{other}", tmp_path / "cache"), other, SHARDS[:1])
    check(make_cache(f"file://{files}", tmp_path / "cache"), files, SHARDS[:1])


def test_path__least_recently_used_go(server: ShardServer, tmp_path: Path) -> None:
    cache = make_cache(server.root, tmp_path, num_shards=3.5)
    for number in (0, 1, 2, 0):
        cache.path(SHARDS[number])
    assert held(cache) == [0, 1, 2]
    cache.path(SHARDS[3])
    assert held(cache) == [0, 2, 3]
    cache.path(SHARDS[4])
    assert held(cache) == [0, 3, 4]
    cache.path(SHARDS[1])
    assert held(cache) == [1, 3, 4]
    assert server.requests_of[SHARDS[1].name] == 2


def test_path__open_file_outlives_its_eviction(files: Path, tmp_path: Path) -> None:
    cache = make_cache(f"file://{files}", tmp_path, num_shards=1)
    with cache.path(SHARDS[0]).open("rb") as file:
        cache.path(SHARDS[1])
        assert held(cache) == [1]
        assert file.read() == (files / SHARDS[0].name).read_bytes()


def test_path__many_processes_keep_within_the_limit(files: Path, tmp_path: Path) -> None:
    cache = make_cache(f"pipe:cat {files}/{{name}}; sleep 0.02", tmp_path, num_shards=2.5)
    most, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.is_set():
            most = max(most, sum(p.is_file() for p in cache.folder.iterdir()))
            time.sleep(0.001)

    def work(number: int) -> None:
        for shard in np.random.default_rng(number).permutation(9)[:5]:
            cache.path(SHARDS[shard])

    watcher = threading.Thread(target=watch)
    watcher.start()
    in_processes(work, 4)
    ended.set()
    watcher.join()
    assert most == 2
    assert len(held(cache)) == 2


def test_path__leftover_of_a_killed_process_goes(files: Path, tmp_path: Path) -> None:
    cache = make_cache(f"file://{files}", tmp_path, num_shards=2)
    part = cache.folder / f"{SHARDS[5].name}.{NUM_BYTES}.part"
    part.write_bytes(b"a few bytes, but as many as the shard has are reserved")
    cache.path(SHARDS[0])
    assert part.exists()
    cache.path(SHARDS[1])
    assert held(cache) == [0, 1]
    part.touch()
    check(cache, files, SHARDS[5:6])
    assert held(cache) == [1, 5]


def test_path__transfers_of_others_do_not_go(files: Path, tmp_path: Path) -> None:
    cache = make_cache(f"file://{files}", tmp_path, num_shards=2)
    part = cache.folder / f"{SHARDS[5].name}.{NUM_BYTES}.part"
    part.touch()
    os.utime(part, (0, 0))
    with FileLock(cache.folder / ".locks" / f"{SHARDS[5].name}.lock"):
        cache.path(SHARDS[0])
        cache.path(SHARDS[1])
        assert part.exists()
        part.unlink()
    assert held(cache) == [1]


def test_path__waits_while_transfers_take_all_room(files: Path, tmp_path: Path) -> None:
    cache = make_cache(f"file://{files}", tmp_path, num_shards=1)
    part = cache.folder / f"{SHARDS[5].name}.{NUM_BYTES}.part"
    part.touch()
    lock = FileLock(cache.folder / ".locks" / f"{SHARDS[5].name}.lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    began = time.monotonic()
    cache.path(SHARDS[0])
    assert time.monotonic() - began >= 0.3
    assert held(cache) == [0]


def test_path__shard_above_the_limit(files: Path, tmp_path: Path) -> None:
    cache = make_cache(f"file://{files}", tmp_path, num_shards=0.5)
    message = r"train-000000.tar has 30000 bytes, more .* \(15000\). Raise data.cache.limit_gb"
    with pytest.raises(UserError, match=message):
        cache.path(SHARDS[0])


def test_path__failure_leaves_nothing(tmp_path: Path) -> None:
    cache = make_cache("pipe:echo {name}; exit 1", tmp_path)
    with pytest.raises(UserError, match=r"cannot fetch train-000000.tar from pipe.* 3 tries"):
        cache.path(SHARDS[0])
    assert held(cache) == []


def test_want__fetches_ahead_in_order(files: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    cache = make_cache(f"pipe:echo {{name}} >> {log}; cat {files}/{{name}}", tmp_path / "cache")
    cache.path(SHARDS[4])
    cache.prefetch([SHARDS[number] for number in (5, 4, 3, 8)])
    wait_for(cache, [3, 4, 5, 8])
    cache.close()
    assert log.read_text().split() == [SHARDS[number].name for number in (4, 5, 3, 8)]


def test_want__replaces_what_has_not_begun(files: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"pipe:until test -e {gate}; do sleep 0.01; done; cat {files}/{{name}}"
    cache = make_cache(command, tmp_path / "cache")
    cache.prefetch(SHARDS[:3])
    wait_until(lambda: any(cache.folder.glob("*.part")))
    cache.prefetch(SHARDS[6:8])
    gate.touch()
    wait_for(cache, [0, 6, 7])
    cache.close()


def test_want__leaves_alone_what_another_process_fetches(files: Path, tmp_path: Path) -> None:
    cache = make_cache(f"file://{files}", tmp_path)
    with FileLock(cache.folder / ".locks" / f"{SHARDS[0].name}.lock"):
        cache.prefetch(SHARDS[:2])
        wait_for(cache, [1])
    cache.close()


def test_want__failures_are_left_to_path(files: Path, tmp_path: Path) -> None:
    absent = Shard("absent.tar", 1, 1)
    cache = make_cache(f"file://{files}", tmp_path)
    cache.prefetch([absent, SHARDS[0]])
    wait_for(cache, [0])
    with pytest.raises(UserError, match=r"cannot fetch absent.tar"):
        cache.path(absent)
    cache.close()


def test_close__ends_the_thread(files: Path, tmp_path: Path) -> None:
    others = set(threading.enumerate())
    cache = make_cache(f"file://{files}", tmp_path)
    cache.close()
    cache.prefetch(SHARDS[:1])
    wait_for(cache, [0])
    (prefetcher,) = (t for t in threading.enumerate() if t.name == PREFETCHER and t not in others)
    cache.close()
    prefetcher.join(timeout=10)
    assert not prefetcher.is_alive()


def test_shard_cache__pickles(files: Path, tmp_path: Path) -> None:
    cache = make_cache(f"file://{files}", tmp_path)
    cache.prefetch(SHARDS[:1])
    wait_for(cache, [0])
    copy = pickle.loads(pickle.dumps(cache))
    check(copy, files, SHARDS[:2])
    assert held(cache) == [0, 1]
    cache.close()


@pytest.mark.parametrize(("num_shards", "num_tries"), [(0, 3), (1, 0)])
def test_shard_cache__numbers_out_of_range(tmp_path: Path, num_shards: int, num_tries: int) -> None:
    with pytest.raises(UserError, match=r"needs num_tries and a limit of at least 1"):
        make_cache("file:///set", tmp_path, num_shards, num_tries)
