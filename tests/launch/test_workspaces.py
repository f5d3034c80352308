"""`ssl-swin dashboard`: what it shows, and what it sends to a server of this machine."""

import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ssl_swin.cli import main
from ssl_swin.errors import UserError
from ssl_swin.launch.loggers import _end_wandb
from ssl_swin.launch.workspaces import made_workspace
from ssl_swin.reporting.workspace import specification
from ssl_swin.runs.metrics import METRICS, declared


class Graph(BaseHTTPRequestHandler):
    """A server that takes every workspace, or refuses the key."""

    refuses = False
    taken: list[dict[str, Any]]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if "upsertView" in asked["query"]:
            self.taken.append(asked["variables"])
        viewer = {"id": "1", "entity": "team", "username": "u", "teams": {"edges": []}}
        view = {"id": "1", "name": "nw-abc-v"}
        answer = {"data": {"viewer": viewer, "upsertView": {"view": view, "inserted": True}}}
        self.send_response(401 if self.refuses else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"" if self.refuses else json.dumps(answer).encode())

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Graph]]:
    """Weights & Biases on this machine, with a key for it."""
    pytest.importorskip("wandb_workspaces")
    _end_wandb()  # it reads its environment once
    handler = type("OfTest", (Graph,), {"taken": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.delenv("WANDB_MODE", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
        yield handler
        server.shutdown()
    _end_wandb()


def matches(panel: dict[str, str], name: str) -> bool:
    if "pattern" in panel:
        return re.search(panel["pattern"], name) is not None
    return panel.get("metric") == name


def test_dashboard__json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "team/swins", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["entity"], printed["project"]) == ("team", "swins")
    assert printed["x_axis"] == "trainer/global_step"
    assert {section["name"]: len(section["panels"]) for section in printed["sections"]} == {
        "train": 12,
        "val": 13,
        "test": 13,
        "probe": 6,
        "rep": 3,
        "optim": 2,
        "amp": 1,
        "health": 2,
        "perf": 2,
        "data": 2,
        "pictures": 4,
    }
    assert printed["sections"][-1]["panels"] == [
        {"title": "reconstructions of held-out images", "pictures": "recon/grid"},
        {"title": "what is told of held-out images", "pictures": "predictions/grid"},
        {"title": "features of held-out images", "pictures": "features/grid"},
        {"title": "probes by stage", "pictures": "probes/stages"},
    ]


@pytest.mark.parametrize(
    "name",
    [
        *(metric.name for metric in METRICS if "*" not in metric.name),
        "probe/knn_top1/stage2",
        "probe/linear_top1/stage4",
        "rep/rankme/stage1",
        "rep/std_mean/stage1",
        "rep/cka_to_init/stage3",
        "probe/val/knn_top1",
        "probe/test/knn_top1/stage3_mean",
        "probe/test/linear_top1",
        "probe/val/linear_top1/stage3_max",
        "val/top1_best",
        "test/top1_at_224px",
        "test/psnr_at_224x192px",
    ],
)
def test_specification__has_one_panel_for_a_logged_name(name: str) -> None:
    panels = [p for section in specification("a", "b")["sections"] for p in section["panels"]]
    (panel,) = (panel for panel in panels if matches(panel, name))
    metric = declared(name)
    assert metric is not None
    assert (panel["title"], panel["unit"]) == (metric.name, metric.unit)


def test_dashboard__is_sent_as_it_is_printed(
    graph: type[Graph], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", "team/swins"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("/team/swins?nw=abc")
    (sent,) = graph.taken
    assert (sent["entityName"], sent["projectName"]) == ("team", "swins")
    section = json.loads(sent["spec"])["section"]
    assert section["settings"]["xAxis"] == "trainer/global_step"
    sections = section["panelBankConfig"]["sections"]
    shown = specification("team", "swins")["sections"]
    assert [each["name"] for each in sections] == [each["name"] for each in shown]
    for ours, theirs in zip(shown, sections, strict=True):
        assert theirs["isOpen"]
        for panel, made in zip(ours["panels"], theirs["panels"], strict=True):
            config = made["config"]
            assert config["chartTitle"] == panel["title"]
            if "pictures" in panel:
                assert (made["viewType"], config["mediaKeys"]) == (
                    "Media Browser",
                    [panel["pictures"]],
                )
                continue
            assert made["viewType"] == "Run History Line Plot"
            assert config["xAxis"] == "trainer/global_step"
            assert config["metrics"] == [panel[key] for key in ("metric",) if key in panel]
            assert config.get("metricRegex") == panel.get("pattern")


def test_dashboard__a_refused_key_is_one_line(
    graph: type[Graph], capfd: pytest.CaptureFixture[str]
) -> None:
    graph.refuses = True
    assert main(["dashboard", "team/swins"]) == 2
    said = capfd.readouterr()
    assert 'File "' not in said.out + said.err
    assert said.err.splitlines()[-1].startswith(
        "ssl-swin: the dashboard cannot be saved to team/swins: "
    )


def test_made_workspace__without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"pip install 'ssl_swin\[workspaces\]'$"):
        made_workspace(specification("a", "b"))
