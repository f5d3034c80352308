import pytest

from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.synthetic.prepare import prepare_demo
from ssl_swin.errors import UserError

DEMO = {"num_train": 12, "num_val": 4, "size_px": 32, "seed": 0}


def test_prepare_demo__draws_once(tmp_path, capsys):
    root = tmp_path / "demo"
    prepare_demo(str(root), **DEMO)
    assert "drawing 16 images" in capsys.readouterr().out
    written = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.iterdir()}
    prepare_demo(str(root), **DEMO)
    assert capsys.readouterr().out == ""
    assert written == {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in root.iterdir()}


def test_prepare_demo__splits_hold_other_drawings_of_the_same_classes(tmp_path):
    prepare_demo(str(tmp_path), **DEMO)
    index = load_index(tmp_path)
    images = {split: [r.data for r in ShardDataset(index, split)] for split in index.splits}
    assert {split: len(set(data)) for split, data in images.items()} == {"train": 12, "val": 4}
    assert not set(images["train"]) & set(images["val"])
    assert len(index.classes) == 10


def test_prepare_demo__goes_on_after_it_was_cut_short(tmp_path, monkeypatch):
    prepare_demo(str(tmp_path / "whole"), **DEMO)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            "ssl_swin.data.packing.pack.write_index",
            lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        prepare_demo(str(tmp_path / "cut"), **DEMO)
    assert (tmp_path / "cut" / "plan.json").exists()
    prepare_demo(str(tmp_path / "cut"), **DEMO)
    whole, cut = (
        {p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("whole", "cut")
    )
    assert whole == cut


@pytest.mark.parametrize("other", [{"num_train": 13}, {"num_val": 5}])
def test_prepare_demo__refuses_another_size(tmp_path, other):
    prepare_demo(str(tmp_path), **DEMO)
    asked = {**DEMO, **other}
    message = f"holds .*'train': 12, 'val': 4.*not the {asked['num_train']} \\+ {asked['num_val']}"
    with pytest.raises(UserError, match=message):
        prepare_demo(str(tmp_path), **asked)
