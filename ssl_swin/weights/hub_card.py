"""The model card as the Hugging Face hub wants it: with metadata in front."""

import re
from typing import Any

import yaml

from ssl_swin.errors import UserError


def hub_card(
    card: str, repository: str, *, is_classifier: bool = False, license_id: str | None = None
) -> str:
    """Adapts the card of a local folder to its place on the hub.

    Args:
        card: Markdown, with or without YAML metadata in front; may be empty.
        repository: USER/NAME, which examples that load from a local folder come to name.
        is_classifier: Whether the model has a head.
        license_id: As the hub spells it, such as "mit"; None leaves what the card says.

    Raises:
        UserError: If the metadata in front is not YAML.
    """
    metadata, body = _split(card)
    metadata.setdefault("tags", ["timm"])
    metadata["library_name"] = "timm"
    metadata["pipeline_tag"] = (
        "image-classification" if is_classifier else "image-feature-extraction"
    )
    if license_id is not None:
        metadata["license"] = license_id
    body = re.sub(r"local-dir:[^\"'\s]+", f"hf-hub:{repository}", body or _body(repository))
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n{body}"


def _split(card: str) -> tuple[dict[str, Any], str]:
    match = re.match(r"---\n(.*?)^---\n", card, flags=re.DOTALL | re.MULTILINE)
    if match is None:
        return {}, card
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise UserError(f"the metadata in front of README.md is not YAML: {error}") from error
    if not isinstance(metadata, dict):
        raise UserError(f"the metadata in front of README.md has no entries: {match[1]!r}")
    return metadata, card[match.end() :]


def _body(repository: str) -> str:
    return f"""# {repository.rpartition("/")[2]}

```python
import timm

model = timm.create_model("hf-hub:{repository}", pretrained=True)
```
"""
