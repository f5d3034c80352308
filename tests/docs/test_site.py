"""The documentation builds as a site, without a warning, and every page is on it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))


class Configuration(yaml.SafeLoader):
    """Reads mkdocs.yml, in which Python's names are left as they are."""


Configuration.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda *_: None)


def _files(node: object) -> list[str]:
    if isinstance(node, str):
        return [node]
    children = node.values() if isinstance(node, dict) else node
    return [name for child in children for name in _files(child)]


def test_every_page_is_in_the_navigation_once() -> None:
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), Configuration)
    assert sorted(_files(settings["nav"])) == PAGES


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


def test_the_site_builds_without_a_warning(copy: Path) -> None:
    done = build(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    written = {path.parent.name for path in (copy / "site").glob("*/index.html")}
    assert {Path(name).stem for name in PAGES} - {"index"} <= written
    home = (copy / "site" / "index.html").read_text()
    assert 'src="http' not in home and "fonts.googleapis" not in home


def test_a_broken_link_is_an_error(copy: Path) -> None:
    page = copy / "docs" / "GUIDE.md"
    page.write_text(page.read_text() + "\n[gone](DATA.md#no-such-heading)\n")
    assert build(copy).returncode != 0
