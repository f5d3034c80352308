"""The reference page holds what the docstrings say today."""

import api_page

import ssl_swin


def test_the_page_is_that_of_todays_docstrings() -> None:
    assert api_page.PAGE.read_text() == api_page.page(), "python tests/docs/api_page.py"


def test_every_public_name_has_an_entry() -> None:
    entries = {line[4:] for line in api_page.PAGE.read_text().splitlines() if line[:4] == "### "}
    assert entries == set(ssl_swin.__all__)


def test_a_signature_keeps_annotations_defaults_and_the_star() -> None:
    text = api_page.PAGE.read_text()
    assert "embed(\n    backbone: Backbone,\n    images: PathLike,\n    *,\n" in text
    assert "    crop_ratio: Portion | None = None,\n    batch_size: Positive = 64,\n" in text
