"""The README.md that travels with handed-off weights."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCardData

from ssl_swin import __version__
from ssl_swin.encoders.encoder import Encoder


@dataclass(frozen=True)
class Training:
    """What a card says about where weights come from."""

    run_name: str
    data: str  # name of the data set
    data_fingerprint: str
    num_images: int
    steps: int
    epochs: int
    objective: str  # one phrase
    losses: str  # one phrase with the last losses, may be empty


def backbone_card(encoder: Encoder, training: Training, tags: Sequence[str]) -> str:
    """Write the card of a pretrained backbone, Markdown.

    Args:
        encoder: The backbone.
        training: Facts of the run that made the weights.
        tags: Words of the objective.
    """
    return f"""{_front_matter("image-feature-extraction", "timm", encoder.family, *tags)}
# {_plain(training.run_name)}

A {encoder.title} pretrained without labels.

```python
{_imports(encoder)}

model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True, num_classes=0)
```

{_facts(encoder, training)}
| architecture | {encoder.describe()} |

The weights have not seen a label. Masked-image features are meant to be fine-tuned; frozen, they
are weaker than those of contrastive methods on natural photographs.
"""


def task_card(
    encoder: Encoder,
    training: Training,
    task: str,
    tags: Sequence[str],
    classes: Sequence[str],
    loading: str = "",
) -> str:
    """Write the card of a network that was fine-tuned on labels, Markdown.

    Args:
        encoder: The encoder under the task's head.
        training: Facts of the run that made the weights.
        task: What it was fine-tuned for, one phrase.
        tags: Words of the task.
        classes: Names of the classes; none where there are none.
        loading: Lines of Python that load it; none where timm does.
    """
    by_timm = (
        f"{_imports(encoder)}\n\n"
        'model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True)'
    )
    library = "ssl_swin" if loading else "timm"
    card = f"""{_front_matter(*tags, library, encoder.family, library=library)}
# {_plain(training.run_name)}

A {encoder.title}, fine-tuned for {_plain(task)}.

```python
{loading or by_timm}
```

{_facts(encoder, training)}
"""
    return card + (f"\nClasses: {_plain(', '.join(classes))}\n" if classes else "")


def import_card(encoder: Encoder, name: str, summary: str) -> str:
    """Write the card of weights from elsewhere, Markdown.

    Args:
        encoder: The encoder with the weights.
        name: Name of their file.
        summary: What became of its tensors, one phrase.
    """
    return (
        f"# {_plain(Path(name).stem)}\n\n"
        f"A {encoder.title} from {_plain(name)}. Of its tensors: {_plain(summary)}.\n"
    )


def timm_card(weights: str, num_classes: int) -> str:
    """Write the card of weights that timm published, Markdown.

    Args:
        weights: timm's name for them.
        num_classes: Number of classes of the head that is kept; 0 for none.
    """
    name = _plain(weights)
    head = f"with its head of {num_classes:,} classes" if num_classes else "without a head"
    return f"# {name}\n\nThe weights of timm's {name}, {head}.\n"


def _imports(encoder: Encoder) -> str:
    """Returns what a program imports that loads the weights through timm."""
    own = "" if encoder.timm_import == "timm" else f"import {encoder.timm_import}  # for timm\n"
    return f"{own}import timm"


def _front_matter(*tags: str, library: str = "timm") -> str:
    """Returns the metadata in front of a card, as the Hugging Face hub reads it."""
    return f"---\n{ModelCardData(library_name=library, tags=list(tags)).to_yaml()}\n---"


def _plain(text: str) -> str:
    """Returns a text as one line of Markdown that shows its characters and formats nothing.

    Addresses of pages, of mail and of users are no links either, and what no font shows, such as
    codes that steer a terminal or turn the direction of writing, becomes a replacement character.
    """
    one_line = " ".join(text.split())
    shown = "".join(
        each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in one_line
    )
    return re.sub(
        r"[\\`*\[\]|~$#@]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.",
        r"\\\g<0>",
        html.escape(shown, quote=False),
        flags=re.IGNORECASE,
    )


def _facts(encoder: Encoder, training: Training) -> str:
    height_px, width_px = encoder.img_size_px
    return f"""| | |
|---|---|
| objective | {_plain(training.objective)} |
| data | {_plain(training.data)}, {training.num_images:,} images \
(fingerprint {training.data_fingerprint}) |
| length | {training.epochs} epochs, {training.steps:,} optimiser steps |
| last measured | {_plain(training.losses) or "nothing"} |
| input | {encoder.in_chans} channels, {height_px}x{width_px} px, normalised as in config.json |
| made with | ssl_swin {__version__} |"""
