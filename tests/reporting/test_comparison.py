"""Several runs on one page: what differs, what came of each, and what is refused."""

import json
import re
from pathlib import Path

import pytest
import yaml

from ssl_swin.cli import main


def make_run(root: Path, name: str, metrics: str, **config: object) -> Path:
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(metrics)
    told = {"name": name, "run_dir": str(folder), "last": {"dirpath": f"{folder}/checkpoints"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(told | config))
    (folder / "provenance.json").write_text(json.dumps({"status": "finished", "duration_s": 61}))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    losses = "step,train/loss,val/loss,val/top1\n0,1,0.9,0.25\n10,0.5,0.6,0.5\n20,0.4,0.7,0.4\n"
    return [
        make_run(tmp_path, "slow", losses, optim={"base_lr": 0.1, "weight_decay": 0.05}),
        make_run(tmp_path, "fast", "step,train/loss\n0,1\n", optim={"base_lr": 1.0,
                 "weight_decay": 0.05}, ema_decay=None),
    ]  # fmt: skip


def page_of(runs: list[Path], out: Path) -> str:
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    return out.read_text()


def rows(page: str) -> dict[str, list[str]]:
    found = re.findall(r'<tr><th scope="row">([^<]+)</th>(.*?)</tr>', page)
    return {label: re.findall("<td>(.*?)</td>", cells) for label, cells in found}


def test_report__of_several_runs(runs: list[Path], tmp_path: Path) -> None:
    page = page_of(runs, tmp_path / "x.html")
    assert "<h1>slow / fast</h1>" in page and "2 runs side by side" in page
    assert rows(page) == {
        "state": ["finished · 20 steps · 1 min 1 s", "finished · 0 steps · 1 min 1 s"],
        "optim.base_lr": ["0.1", "1.0"],
        "ema_decay": ["-", "null"],
        "val/loss": ["0.7, best 0.6 at step 10", "-"],
        "val/top1": ["0.4, best 0.5 at step 10", "-"],
    }
    titles = re.findall(r"<figcaption><b>(.*?)</b>(.*?)</figcaption>", page)
    assert [title for title, _ in titles] == ["train/loss", "val/loss", "val/top1"]
    assert [re.findall("</svg>(.*?)</span>", legend) for _, legend in titles] == [
        ["slow", "fast"],
        ["slow"],
        ["slow"],
    ]


def test_report__of_probes_tells_stages(tmp_path: Path) -> None:
    scores = "step,probe/val/knn_top1\n1,20\n2,40\n3,30\n"
    probes = [make_run(tmp_path, name, scores, poolings=["mean"], linear={}) for name in "ab"]
    page = page_of(probes, tmp_path / "x.html")
    told = rows(page)
    assert told["state"] == ["finished · 3 stages · 1 min 1 s"] * 2
    assert told["probe/val/knn_top1"] == ["30, best 40 at stage 2"] * 2
    assert "<h2>Curves over stages</h2>" in page
    assert re.findall('<text class="axis"[^>]*>([^<]*)<', page) == ["stage"]


def test_report__of_a_probe_beside_a_pretraining(runs: list[Path], tmp_path: Path) -> None:
    scores = "step,probe/val/knn_top1\n1,20\n2,40\n"
    probe = make_run(tmp_path, "probe", scores, poolings=["mean"], linear={})
    page = page_of([runs[0], probe], tmp_path / "x.html")
    assert "<h2>Curves over steps or stages</h2>" in page
    told = rows(page)
    assert told["val/top1"] == ["0.4, best 0.5 at step 10", "-"]
    assert told["probe/val/knn_top1"] == ["-", "40"]
    assert told["state"][1].startswith("finished · 2 stages")


def test_report__escapes_and_names_apart(tmp_path: Path) -> None:
    attack = "<script>x"
    runs = [make_run(tmp_path / each, attack, f"step,{attack}\n0,1\n", a=attack + each)
            for each in "pq"]  # fmt: skip
    page = page_of(runs, tmp_path / "x.html")
    assert page.count("<script") == 1 and "default-src 'none'" in page
    assert f"p/runs/{attack}".replace("<", "&lt;").replace(">", "&gt;") in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{0}", "{0}"], "one of the runs is named twice"),
        (["{0}", "{1}", "--out", "page.txt"], "a page ends in .html, such as page.html"),
        (["{0}", "--out", "page.html"], "--out is for several runs"),
        (["nowhere"], "nowhere is no run: it holds none of config.yaml"),
        (["{0}", "nowhere"], "nowhere is no run"),
        (["{0}"] * 7, "two to 6 runs can be told apart on a page, got 7"),
    ],
)
def test_report__refuses(
    words: list[str],
    told: str,
    runs: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *(word.format(*runs) for word in words)]) == 2
    assert told in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_report__of_one_run_says_what_was_run(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(runs[0])]) == 0
    assert capsys.readouterr().out == f"report: {runs[0] / 'report.html'}\n"
    page = (runs[0] / "report.html").read_text()
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert facts["recipe"] == "base learning rate 0.1, weight decay 0.05"
    assert facts["results"] == (
        "val/loss 0.7 (best 0.6 at step 10), val/top1 0.4 (best 0.5 at step 10)"
    )
