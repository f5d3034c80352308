"""The model card as the Hugging Face hub wants it: with metadata in front."""

import re

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from ssl_swin.errors import UserError

_NO_METADATA = "---\n\n---\n"
_TITLE = "## With transformers"
_RGB = 3  # channels
_SECTION = re.compile(rf"\s*^{_TITLE}$.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)


def hub_card(
    card: str,
    repository: str,
    *,
    is_classifier: bool = False,
    license_id: str | None = None,
    timm_import: str = "",
    channels: int = _RGB,
) -> str:
    """Adapts the card of a local folder to its place on the hub.

    Args:
        card: Markdown, with or without YAML metadata in front; may be empty.
        repository: USER/NAME, which replaces the local folder in examples that load the model.
        is_classifier: Whether the model has a head.
        license_id: License as the hub spells it, such as "mit"; None keeps the license in the card.
        timm_import: See `import_for_timm`.
        channels: Of its images.

    Returns:
        The card with metadata in front.

    Raises:
        UserError: If the metadata in front is not YAML, or not a dictionary of known form.
    """
    adapted = _parse(card)
    metadata = adapted.data
    metadata["tags"] = metadata.get("tags", ["timm"])
    metadata["library_name"] = "timm"
    metadata["pipeline_tag"] = (
        "image-classification" if is_classifier else "image-feature-extraction"
    )
    if license_id is not None:
        metadata["license"] = license_id
    body = re.sub(_SECTION, "", adapted.text) or _body(repository)
    body = re.sub(r"local-dir:[^\"'\s]+", f"hf-hub:{repository}", body)
    section = _with_transformers(repository, is_classifier, timm_import, channels)
    adapted.text = f"{body.rstrip()}\n\n{section}"
    return str(adapted)


def _parse(card: str) -> ModelCard:
    has_metadata = REGEX_YAML_BLOCK.search(card) is not None
    try:
        return ModelCard(card if has_metadata else f"{_NO_METADATA}{card}")
    except yaml.YAMLError as error:
        raise UserError(f"the metadata in front of README.md is not YAML: {error}") from error
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the metadata in front of README.md is not that of a model card: {error}"
        ) from error


def _body(repository: str) -> str:
    return f"""# {repository.rpartition("/")[2]}

```python
import timm

model = timm.create_model("hf-hub:{repository}", pretrained=True)
```
"""


def _with_transformers(
    repository: str, is_classifier: bool, timm_import: str, channels: int
) -> str:
    """Return the section on transformers, which load timm's layout where timm is installed."""
    if channels != _RGB:
        return (
            f"{_TITLE}\n\nNot by its name alone: its images have {channels} channels, and what "
            "transformers prepare images with makes them RGB.\n"
        )
    needed = timm_import.replace("; ", "  # for timm\n")
    classify = f"""```python
{needed}from transformers import pipeline

pipeline("image-classification", model="{repository}")("photo.jpg")
```

"""
    return f"""{_TITLE}

{classify * is_classifier}```python
{needed}from transformers import AutoImageProcessor, AutoModel

inputs = AutoImageProcessor.from_pretrained("{repository}")(image, return_tensors="pt")
features = AutoModel.from_pretrained("{repository}")(**inputs).pooler_output
```

They need timm beside them, whose transforms resize, crop and normalise images as config.json says.
"""
