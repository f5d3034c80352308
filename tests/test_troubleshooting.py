"""What docs/TROUBLESHOOTING.md says that a failure prints is what it prints."""

import re
from pathlib import Path

import pytest
from troubleshooting import cases, masked

PAGE = Path(__file__).parents[1] / "docs/TROUBLESHOOTING.md"


@pytest.mark.slow
def test_page__shows_what_is_printed(tmp_path: Path) -> None:
    shown = dict(re.findall(r"<!-- case: ([\w -]+) -->\n```\n(.*?)\n```", PAGE.read_text(), re.S))
    printed = dict(cases(tmp_path))
    assert shown.keys() == printed.keys()
    for name, text in printed.items():
        assert 'File "' not in text, text
        assert masked(shown[name]) == masked(text), name
