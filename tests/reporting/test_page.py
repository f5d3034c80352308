import base64
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.errors import UserError
from ssl_swin.reporting.comparison import write_comparison
from ssl_swin.reporting.page import write_report

PNG = b"\x89PNG not really"


def report(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "swin_t_run"
    (folder / "reconstructions").mkdir(parents=True)
    (folder / "metrics.csv").write_text(
        "step,epoch,train/loss,val/loss,lr/all,optim/grad_norm\n"
        "0,0,1.0,,0,5\n500,0,nan,0.75,1e-3,4\n1000,1,0.5,0.625,0,3\n"
    )
    for step in (0, 1000):
        (folder / f"reconstructions/step_{step:06d}.png").write_bytes(PNG + str(step).encode())
    (folder / "confusion_matrix.png").write_bytes(PNG)
    (folder / "config.yaml").write_text("model: swin_t  # a & b\n")
    (folder / "provenance.json").write_text(json.dumps({"status": "finished", "duration_s": 5025}))
    return folder


def test_write_report__shows_every_part(run_folder):
    page = report(run_folder)
    assert "<title>swin_t_run</title>" in page and "<h1>swin_t_run</h1>" in page
    assert '<p class="summary">finished · 1,000 steps · 1 h 23 min</p>' in page
    assert re.findall(r"<figcaption><b>([^<]*)</b>", page) == [
        "loss",
        "optim/grad_norm",
        "lr/all",
    ]
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["Learning", "Optimisation", "Other metrics"]
    assert re.findall(r"</svg>(train|val)</span>", page) == ["train", "val"]
    assert (
        re.findall(r'role="img" aria-label="([^"]*)"', page)[0]
        == "train/loss from 1 to 0.5, val/loss from 0.75 to 0.625, over step"
    )
    assert "1 not finite, left out" in page
    assert "<summary>config.yaml</summary><pre>model: swin_t  # a &amp; b\n</pre>" in page
    assert "<summary>provenance.json</summary>" in page
    assert "confusion_matrix" in page


def test_write_report__returns_the_page_and_leaves_nothing_else(run_folder):
    before = set(run_folder.iterdir())
    assert write_report(run_folder) == run_folder / "report.html"
    assert set(run_folder.iterdir()) - before == {run_folder / "report.html"}
    assert report(run_folder) == report(run_folder)


def test_write_report__is_self_contained_and_inert(run_folder):
    page = report(run_folder)
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!data:image/(?:png|webp);base64,)', page)
    assert "@import" not in page and "url(" not in page
    assert scripts_of(page) == 1


def scripts_of(page: str) -> int:
    """Count the scripts, each of which is the one that the page's policy lets run."""
    (allowed,) = re.findall(r"script-src 'sha256-([^']+)'", page)
    scripts = re.findall(r"<script[^>]*>(.*?)</script", page, re.DOTALL | re.IGNORECASE)
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == allowed
    return page.lower().count("<script")


def test_write_report__embeds_pictures_byte_for_byte(run_folder):
    embedded = re.findall(r'base64,([^"]+)" alt="([^"]+)"', report(run_folder))
    assert [(base64.b64decode(data), alt) for data, alt in embedded] == [
        (PNG + b"1000", "step 1,000"),
        (PNG + b"0", "step 0"),
        (PNG, "confusion_matrix"),
    ]


def test_write_report__photographs_take_fewer_bytes_and_look_the_same(tmp_path):
    (tmp_path / "reconstructions").mkdir()
    smooth = np.add.outer(np.arange(96), np.arange(64))[..., None] * [1.0, 1.2, 0.8]
    noise = np.random.default_rng(0).normal(0, 4, (96, 64, 3))
    pixels = (smooth + noise).clip(0, 255).astype(np.uint8)
    path = tmp_path / "reconstructions/step_7.png"
    Image.fromarray(pixels).save(path)
    ((kind, data),) = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', report(tmp_path))
    embedded = base64.b64decode(data)
    assert kind == "webp" and len(embedded) < path.stat().st_size / 3
    shown = np.asarray(Image.open(io.BytesIO(embedded)).convert("RGB")).astype(int)
    assert np.abs(shown - pixels).mean() < 4


def test_write_report__shows_six_reconstructions_spread_over_the_run(tmp_path):
    (tmp_path / "reconstructions").mkdir()
    for step in [*range(0, 10_001, 500), 99_999_999]:  # 22, in numbers and not in letters
        (tmp_path / f"reconstructions/step_{step:06d}.png").write_bytes(PNG)
    (tmp_path / "reconstructions/step_x.png").write_bytes(PNG)
    (tmp_path / "reconstructions/other.png").write_bytes(PNG)
    captions = re.findall(r"<figcaption>step ([^<]*)<button", report(tmp_path))
    assert captions == ["99,999,999", "0", "2,000", "4,000", "6,500", "8,500"]


def test_write_report__shows_features_at_three_steps(tmp_path):
    (tmp_path / "features").mkdir()
    for step in (0, 500, 1000, 1500, 2000):
        (tmp_path / f"features/step_{step:07d}.png").write_bytes(PNG)
    page = report(tmp_path)
    assert re.findall(r"<figcaption>step ([^<]*)<button", page) == ["2,000", "0", "1,000"]
    assert "<h2>Features</h2>" in page and "<h2>Reconstructions</h2>" not in page


def test_write_report__everything_is_escaped(tmp_path):
    attack = "<script>alert('x')<b>"
    folder = tmp_path / attack
    folder.mkdir()
    (folder / "metrics.csv").write_text(f"step,{attack},train/{attack}\n0,1,1\n1,2,2\n")
    (folder / f"{attack}.png").write_bytes(PNG)
    (folder / "config.yaml").write_text(attack + "</pre></details>")
    (folder / "provenance.json").write_text(json.dumps({"status": attack}))
    page = report(folder)
    assert scripts_of(page) == 1 and "<b>alert" not in page
    assert page.count("</pre>") == 2
    assert len(re.findall("&lt;script&gt;alert\\(&#(?:39|x27);x&#(?:39|x27);\\)", page)) >= 8


def test_write_report__empty_folder_says_so(tmp_path):
    page = report(tmp_path)
    assert "Nothing has been logged in this folder yet." in page
    assert not re.search(r"<h2|<svg|<img|<details", page.partition("<script")[0])


def test_write_report__metrics_without_values(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,epoch,train/loss\n0,0,\n1,0,nan\n")
    page = report(tmp_path).partition("<script")[0]
    assert "<svg" not in page and "steps" not in page


@pytest.mark.parametrize(
    "missing", ["metrics.csv", "config.yaml", "provenance.json", "confusion_matrix.png"]
)
def test_write_report__missing_parts_are_left_out(run_folder, missing):
    (run_folder / missing).unlink()
    page = report(run_folder)
    expected = {
        "<h2>Curves over steps</h2>": "metrics.csv",
        "<summary>config.yaml</summary>": "config.yaml",
        "<summary>provenance.json</summary>": "provenance.json",
        "<h2>Pictures</h2>": "confusion_matrix.png",
        "<h2>Reconstructions</h2>": "reconstructions",
    }
    for part, source in expected.items():
        assert (part in page) == (source != missing)


@pytest.mark.parametrize(
    ("provenance", "summary"),
    [
        ('{"status": "interrupted"}', "interrupted · 1,000 steps"),
        ('{"duration_s": 61.4}', "1,000 steps · 1 min 1 s"),
        ('{"duration_s": 9, "status": null}', "1,000 steps · 9 s"),
        ('{"duration_s": "long"}', "1,000 steps"),
        ("[1]", "1,000 steps"),
        ("{broken", "1,000 steps"),
    ],
)
def test_write_report__summary_of_what_is_known(run_folder, provenance, summary):
    (run_folder / "provenance.json").write_text(provenance)
    assert f'<p class="summary">{summary}</p>' in report(run_folder)


def test_write_report__no_such_folder(tmp_path):
    with pytest.raises(UserError, match=r"there is no run folder .*absent to report on"):
        write_report(tmp_path / "absent")


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (0.75, "held-out images are predicted 25.0 % better than by the mean"),
        (1.25, "held-out images are predicted no better than by the mean"),
    ],
)
def test_write_report__verdict(tmp_path, ratio, verdict):
    (tmp_path / "metrics.csv").write_text(f"step,val/loss_vs_mean\n5,2\n10,{ratio}\n")
    assert f"<dt>verdict</dt><dd>{verdict}</dd>" in report(tmp_path)


@pytest.mark.parametrize(("count", "is_shown"), [(0, False), (3, True)])
def test_write_report__counts_of_faults_that_never_happened_are_left_out(tmp_path, count, is_shown):
    (tmp_path / "metrics.csv").write_text(f"step,data/bad_samples,x/zero\n0,0,0\n1,{count},0\n")
    page = report(tmp_path)
    assert ("<b>data/bad_samples</b>" in page) == is_shown
    assert "<b>x/zero</b>" in page


BOMB = "k0: &k0 [1]\n" + "".join(  # each nine times the one before
    f"k{number}: &k{number} [{', '.join(9 * [f'*k{number - 1}'])}]\n" for number in range(1, 40)
)


@pytest.mark.parametrize(
    "config",
    ["[", "a: &a [*a]", "3", "model: 3\nobjective: [1]\noptim: x", BOMB, 90 * "[" + 90 * "]"],
)
def test_write_report__configuration_that_is_none(tmp_path, config):
    (tmp_path / "config.yaml").write_text(config)
    assert "<dt>" not in report(tmp_path)


def test_report__of_runs_whose_configurations_multiply(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(BOMB)
    write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "x.html")
    assert "What differs" not in (tmp_path / "x.html").read_text()


def notices(page: str) -> list[str]:
    (found,) = re.findall(r'<ul class="notices">(.*?)</ul>', page, re.DOTALL)
    return re.findall(r"<li[^>]*>(.*?)</li>", found)


def test_write_report__warnings_and_restarts(tmp_path):
    names = "health/skipped_steps,data/bad_samples,health/collapse,perf/data_wait_frac,train/loss"
    (tmp_path / "metrics.csv").write_text(
        f"step,{names}\n0,0,0,0,0.1,1\n5,1,0,1,0.3,nan\n9,2,1,0,0.2,1\n"
    )
    (tmp_path / "errors.log").write_text("=== 2026-01-01 00:00:00 the kNN probe\nboom\n")
    starts = ["2026-01-01T10:00:00+00:00", "2026-01-02T11:30:00+00:00"]
    (tmp_path / "provenance.json").write_text(json.dumps({"starts": starts}))
    assert notices(report(tmp_path)) == [
        "2 steps left out: not finite",
        "1 image could not be read",
        "the alarm for a collapse was on, first about step 5",
        "train/loss: 1 value not finite",
        "steps waited for data 20 % of the time",
        f"failed beside the training: the kNN probe; see {tmp_path / 'errors.log'}",
        "started 2 times, first 2026-01-01 10:00, last 2026-01-02 11:30 UTC",
    ]


def test_write_report__no_warnings_of_a_quiet_run(run_folder):
    (run_folder / "metrics.csv").write_text("step,perf/data_wait_frac\n0,0.05\n")
    (run_folder / "provenance.json").write_text('{"starts": ["2026-01-01T10:00:00+00:00"]}')
    assert notices(report(run_folder)) == ["started once, 2026-01-01 10:00 UTC"]


def test_write_report__environment_and_next_steps(tmp_path):
    record = {"git": "abc", "packages": {"torch": "2.9"}, "gpus": ["H100", "H100"],
              "data": {"train": "f00"}, "next": ["ssl-swin a 'b'", "c <d>"]}  # fmt: skip
    (tmp_path / "provenance.json").write_text(json.dumps(record))
    page = report(tmp_path)
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page.partition("Environment")[2]))
    assert facts == {
        "code": "abc",
        "packages": "torch 2.9",
        "GPUs": "H100, H100",
        "fingerprint of the data": "train f00",
    }
    assert (
        "<h2>Next steps</h2>\n<pre>ssl-swin a &#39;b&#39;</pre>\n<pre>c &lt;d&gt;</pre>\n" in page
    )


PER_CLASS = "class,images,right,accuracy_percent,most_often_taken_for,times\n"


def test_write_report__classes_of_a_split_the_lowest_accuracy_first(tmp_path):
    folder = tmp_path / "confusion_test"
    folder.mkdir()
    (folder / "confusion.png").write_bytes(PNG)
    (folder / "mistakes.png").write_bytes(PNG + b"2")
    (folder / "per_class.csv").write_text(
        f"{PER_CLASS}a,4,4,100.00,,0\nb,0,0,,,0\nc,4,1,9.50,a,3\nd,4\n"
    )
    page = report(tmp_path)
    assert re.findall("<h2>(.*?)</h2>", page) == ["Classes on test"]
    embedded = re.findall(r'base64,([^"]+)" alt="([^"]+)"', page)
    assert [(base64.b64decode(data), alt) for data, alt in embedded] == [
        (PNG, "confusion matrix, test"),
        (PNG + b"2", "most confident mistakes, test"),
    ]
    assert re.findall(r'<th scope="row">(.*?)</th>', page) == ["c", "a", "b"]
    assert "<td>9.50</td><td>a</td><td>3</td>" in page


def test_write_report__classes_of_hostile_names_are_escaped(tmp_path):
    attack = "<script>alert(1)</script>"
    folder = tmp_path / f"confusion_{attack.replace('/', '')}"
    folder.mkdir()
    (folder / "confusion.png").write_bytes(PNG)
    (folder / "per_class.csv").write_text(f"{PER_CLASS}{attack},1,0,0.00,{attack},1\n")
    page = report(tmp_path)
    assert scripts_of(page) == 1
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "<h2>Classes on &lt;script&gt;" in page


def test_write_report__many_classes_are_the_worst_two_hundred(tmp_path):
    (tmp_path / "confusion_val").mkdir()
    rows = "".join(f"c{number},9,1,{100 - number / 10},x,8\n" for number in range(201))
    (tmp_path / "confusion_val/per_class.csv").write_text(PER_CLASS + rows)
    page = report(tmp_path)
    shown = re.findall(r'<th scope="row">(.*?)</th>', page)
    assert len(shown) == 200 and (shown[0], shown[-1]) == ("c200", "c1")
    assert "200 of 201 classes" in page


def test_write_report__of_a_linear_probe_is_over_stages(tmp_path):
    (tmp_path / "config.yaml").write_text("poolings: [mean, max]\nlinear: {epochs: 90}\n")
    names = "probe/val/knn_top1,probe/val/knn_top1/mean,probe/test/knn_top1"
    (tmp_path / "metrics.csv").write_text(f"step,{names}\n2,,30,\n4,41.25,41.25,40\n")
    page = report(tmp_path)
    assert "<h2>Curves over stages</h2>" in page
    assert '<p class="summary">2 stages</p>' in page
    told = "probe/val/knn_top1 41.25 at stage 4, probe/test/knn_top1 40 at stage 4"
    assert f"<dt>results</dt><dd>{told}</dd>" in page
    labels = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert labels and all(label.endswith("over stage") for label in labels)


def test_write_report__of_probes_of_all_stages_the_result_is_that_of_the_best(tmp_path):
    names = ",".join(f"probe/knn_top1/stage{stage}" for stage in (1, 2, 3))
    (tmp_path / "metrics.csv").write_text(f"step,val/loss,{names}\n0,2,20,60,20\n9,1,30,50,40\n")
    told = "val/loss 1, probe/knn_top1/stage2 50 (best 60 at step 0)"
    assert f"<dt>results</dt><dd>{told}</dd>" in report(tmp_path)
