"""The README.md that travels with handed-off weights."""

from collections.abc import Sequence
from dataclasses import dataclass

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
        training: Where its weights come from.
        tags: Words of the objective.
    """
    return f"""---
library_name: timm
tags: [{", ".join(["image-feature-extraction", "timm", encoder.family, *tags])}]
---
# {training.run_name}

A {encoder.title} pretrained without labels.

```python
import timm

model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True, num_classes=0)
```

{_facts(encoder, training)}
| architecture | {encoder.describe()} |

The weights have not seen a label. Masked-image features are meant to be fine-tuned; frozen, they
are weaker than those of contrastive methods on natural photographs.
"""


def classifier_card(encoder: Encoder, training: Training, classes: tuple[str, ...]) -> str:
    """Writes the card of a fine-tuned classifier, Markdown."""
    return f"""---
library_name: timm
tags: [image-classification, timm, {encoder.family}]
---
# {training.run_name}

A {encoder.title} classifier of {len(classes)} classes.

```python
import timm

model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True)
```

{_facts(encoder, training)}

Classes: {", ".join(classes)}
"""


def _facts(encoder: Encoder, training: Training) -> str:
    height_px, width_px = encoder.img_size_px
    return f"""| | |
|---|---|
| objective | {training.objective} |
| data | {training.data}, {training.num_images:,} images (fingerprint {training.data_fingerprint}) |
| length | {training.epochs} epochs, {training.steps:,} optimiser steps |
| last measured | {training.losses or "nothing"} |
| input | {encoder.in_chans} channels, {height_px}x{width_px} px, normalised as in config.json |
| made with | ssl_swin {__version__} |"""
