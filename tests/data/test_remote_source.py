from pathlib import Path

import numpy as np
import pytest
from servers import serve

from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import LoaderConfig
from ssl_swin.errors import UserError

ORDER = OrderConstants(block=None, pool=8, lanes=2)


def cache(folder: Path, **changes: object) -> dict[str, object]:
    return {"dir": str(folder), "limit_gb": 1, "num_tries": 3, "first_wait_s": 0.01} | changes


def levels(root: str, identify, folder: Path, num_batches: int, **options: object) -> list[int]:
    """The first training images, through a reader as a job opens it."""
    readers = open_splits(root, "indexed", how_to_make="", order=ORDER, **options)
    loader = readers["train"].train_loader(identify, list, LoaderConfig(3, 0, 0, 1), seed=0)
    batches = [batch for _, batch in zip(range(num_batches), loader, strict=False)]
    return [level for batch in batches for level, *_ in batch]


def test_remote__equals_local_and_fetches_each_shard_once(shards, identify, tmp_path):
    local = levels(str(shards), identify, tmp_path, 7)
    with serve(shards) as server:
        server.cut = True  # a third of the first transfers end early
        remote = levels(server.root, identify, tmp_path, 7, cache=cache(tmp_path / "cache"))
        assert remote == local
        assert len(set(local)) == 21
        again = levels(server.root, identify, tmp_path, 7, cache=cache(tmp_path / "cache"))
        assert again == local
        whole = [n for n in server.requests_of if n.startswith("train")]
    assert len(whole) == 5
    assert sum(server.requests_of[name] for name in whole) <= 5 + 2  # and those that were cut


def test_remote__the_next_shards_are_on_their_way(shards, identify, tmp_path):
    with serve(shards) as server:
        readers = open_splits(
            server.root, "indexed", how_to_make="", order=ORDER, cache=cache(tmp_path / "cache")
        )
        source = readers["train"].dataset
        needed = source.shards_of(np.array([22, 0, 1, 11]))
        assert [shard.name for shard in needed] == [
            "train-000004.tar",
            "train-000000.tar",
            "train-000002.tar",
        ]
        source.fetch_ahead(np.array([22, 0]))
        for shard in needed[:2]:
            assert source.cache.path(shard).stat().st_size == shard.num_bytes
        assert server.requests_of["train-000000.tar"] == 1
        assert server.requests_of["train-000002.tar"] == 0
        source.cache.close()


def test_remote__index_elsewhere(shards, identify, tmp_path):
    (tmp_path / "index").mkdir()
    for name in ("index.json", "index.bin"):
        (tmp_path / "index" / name).write_bytes((shards / name).read_bytes())
    pipe = f"pipe:cat {shards}/{{name}}"
    options = {"cache": cache(tmp_path / "cache"), "index_dir": str(tmp_path / "index")}
    assert levels(pipe, identify, tmp_path, 3, **options) == levels(
        str(shards), identify, tmp_path, 3
    )


def test_remote__cache_too_small_for_what_is_in_use(shards, identify, tmp_path):
    tiny = cache(tmp_path / "cache", limit_gb=2e-5)
    message = (
        r"4 shards of train are in use at a time, two of each stream: 8\.19e-05 GB.*limit_gb, or"
    )
    with pytest.raises(UserError, match=message):
        levels(f"pipe:cat {shards}/{{name}}", identify, tmp_path, 1, cache=tiny)
