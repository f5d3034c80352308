"""The settings of a cache are checked, also where the shards lie on this machine."""

from pathlib import Path

import pytest

from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.remote.cache_options import CacheOptions
from ssl_swin.errors import UserError

GOOD = {"dir": "cache", "limit_gb": 1.5, "num_tries": 3, "first_wait_s": 0}
WRONG = [
    ({"limit_gb": 0}, "limit_gb must be a number of at least 1e-09, got 0"),
    ({"limit_gb": -1}, r"limit_gb must be .*, got -1"),
    ({"limit_gb": 1e-12}, r"limit_gb must be .*, got 1e-12"),
    ({"limit_gb": float("nan")}, r"limit_gb must be .*, got nan"),
    ({"limit_gb": float("inf")}, r"limit_gb must be .*, got inf"),
    ({"limit_gb": "100"}, r"limit_gb must be .*, got '100'"),
    ({"limit_gb": True}, r"limit_gb must be .*, got true"),
    ({"limit_gb": None}, r"limit_gb must be .*, got null"),
    ({"num_tries": 0}, "num_tries must be a whole number of at least 1, got 0"),
    ({"num_tries": 1.5}, r"num_tries must be a whole number of at least 1, got 1\.5"),
    ({"num_tries": True}, "num_tries must be a whole number of at least 1, got true"),
    ({"first_wait_s": -1}, "first_wait_s must be a number of at least 0, got -1"),
    ({"first_wait_s": [1]}, r"first_wait_s must be a number of at least 0, got \[1\]"),
    ({"dir": " "}, "dir must be text, not empty, got ' '"),
    ({"dir": 3}, "dir must be text, not empty, got 3"),
    ({"limit": 3}, r"no setting data\.cache\.limit, only dir, limit_gb, num_tries, first_wait_s"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
@pytest.mark.parametrize("root", ["SHARDS", "https://host/shards"])
def test_cache__mistakes(shards: Path, root: str, change: dict[str, object], message: str) -> None:
    order = OrderConstants(block=4, pool=64, lanes=1)
    root = root.replace("SHARDS", str(shards))
    with pytest.raises(UserError, match=message):
        open_splits(root, "indexed", how_to_make="", order=order, cache=GOOD | change)


def test_cache__of_shards_that_lie_here_is_told(shards: Path, tmp_path: Path) -> None:
    order = OrderConstants(block=4, pool=64, lanes=1)
    cache = GOOD | {"dir": str(tmp_path / "cache")}
    splits = open_splits(shards, "indexed", how_to_make="", order=order, cache=cache)
    told = f"{shards} is a folder of this machine: shards are read there, not cached"
    assert splits["train"].warning == told
    assert not (tmp_path / "cache").exists()


def test_cache_options__of_settings() -> None:
    assert CacheOptions.of(GOOD).limit_bytes == 1_500_000_000
    with pytest.raises(UserError, match=r"data\.cache\.dir is not set: give it as"):
        CacheOptions.of({"limit_gb": 1})


def test_open_splits__a_cache_that_cannot_be_made_is_told_before_anything_is_fetched(tmp_path):
    (tmp_path / "file").touch()
    cache = {"dir": str(tmp_path / "file/cache"), "limit_gb": 1, "num_tries": 1, "first_wait_s": 0}
    order = OrderConstants(block=2, pool=8, lanes=1)
    with pytest.raises(UserError, match=r"^data.cache.dir: cannot create .*file is a file"):
        open_splits("http://127.0.0.1:9/set", "indexed", how_to_make="", order=order, cache=cache)
