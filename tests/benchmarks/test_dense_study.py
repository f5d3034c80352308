"""`benchmarks.dense`: each backbone is trained once, and fine-tuned with all numbers of labels."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import studies
from benchmarks.dense import __main__ as dense

SETTINGS: dict[str, Any] = {
    "job": "segment",
    "metric": "val/miou_best",
    "images": ["all", 4],
    "shared": ["data=masks", "data.root={data}"],
    "backbones": {
        "random": {"settings": ["backbone=none"]},
        "sparse": {"job": "pretrain", "settings": ["objective=simmim_sparse"]},
    },
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A study whose jobs write a metric, by the number of the call, instead of training."""
    study = dense.Study(SETTINGS, tmp_path / "nuclei", tmp_path / "out")
    study.out.mkdir()
    study.calls = []

    def call(job: str, words: list[str]) -> float:
        study.calls.append((job, words))
        run = study.out / "runs" / job / words[-1].removeprefix("name=")
        run.mkdir(parents=True)
        number = len(study.calls)
        (run / "metrics.csv").write_text(
            f"step,val/miou,val/miou_best\n1,0.9,\n2,0.8,0.{number}\n3,0.7,\n"
        )
        return 10.0 * number

    monkeypatch.setattr(study, "call", call)
    return study


def test_run__trains_a_backbone_once_and_fine_tunes_it_with_every_number_of_labels(study: Any):
    study.run("sparse", 1)
    jobs = [job for job, _ in study.calls]
    assert jobs == ["pretrain", "segment", "segment"]
    pretraining, whole, few = (words for _, words in study.calls)
    assert pretraining == ["objective=simmim_sparse", "logger=csv", "seed=1", "name=sparse_1"]
    start = ["data=masks", "data.root={data}", "backbone=runs/pretrain/sparse_1"]
    assert whole == [*start, "seed=1", "name=sparse_1_all"]
    assert few == [*start, "labels.number=4", "seed=1", "name=sparse_1_4"]
    assert [(row["images"], row["score"]) for row in study.rows()] == [("all", "0.2"), ("4", "0.3")]
    assert [row["pretraining_s"] for row in study.rows()] == ["10", "10"]


def test_run__does_not_do_again_what_is_in_the_table(study: Any):
    study.run("random", 0)
    assert [job for job, _ in study.calls] == ["segment", "segment"]
    study.run("random", 0)
    assert len(study.calls) == 2
    study.run("random", 1)
    assert len(study.calls) == 4


def test_summary__means_and_spreads_by_hand(study: Any):
    rows = [
        {"backbone": "a", "seed": "0", "images": "all", "score": "0.5", "pretraining_s": "10"},
        {"backbone": "a", "seed": "1", "images": "all", "score": "0.7", "pretraining_s": "20"},
        {"backbone": "b", "seed": "0", "images": "4", "score": "0.25", "pretraining_s": "0"},
    ]
    lines = dense.summary(rows, "mIoU").splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        *("backbone", "seeds", "mIoU, all images", "mIoU, 4 images", "pretraining, s")
    ]
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        *("a", "2", "60.0 +- 14.1", "-", "15")
    ]
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == [
        *("b", "1", "-", "25.0", "0")
    ]


@pytest.mark.parametrize("file", sorted(Path(dense.__file__).parent.glob("*.yaml")), ids=str)
def test_files__name_jobs_and_settings_that_are_composed(file: Path, tmp_path: Path):
    from ssl_swin.launch.composing import composed_for_user

    settings = yaml.safe_load(file.read_text())
    assert set(settings) == set(SETTINGS)
    for source in settings["backbones"].values():
        if "job" in source:
            composed_for_user(source["job"], fill(source["settings"], tmp_path))
        else:
            words = fill([*settings["shared"], *source["settings"]], tmp_path)
            composed_for_user(settings["job"], words)


def fill(words: list[str], folder: Path) -> list[str]:
    return [word.replace("{data}", str(folder)) for word in words]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.yaml"], "cannot read gone.yaml"),
        (["list.yaml"], "list.yaml is no study of this kind, which has job, metric"),
        (["study.yaml", "--backbones", "spare"], "no backbone spare; there are: random, sparse"),
        (["study.yaml"], "segment.py has ended with code 2, see the end of out/log.txt"),
    ],
)
def test_main__ends_in_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("[1]")
    Path("study.yaml").write_text(yaml.safe_dump(SETTINGS))
    ended = subprocess.CompletedProcess([], 2)
    monkeypatch.setattr(studies.subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(SystemExit) as left:
        dense.main([*words, "--data", "data", "--out", "out"])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
