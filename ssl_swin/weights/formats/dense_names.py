"""What the files of segmenters and detectors hold around an encoder, by the format of its names.

An encoder's norms of single maps and the heads lie beside its own tensors. Heads have the names of
OpenMMLab's programs, which Swin's own segmentation and detection code is made of.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ssl_swin.errors import UserError
from ssl_swin.weights.formats.detectron2 import DETECTRON2
from ssl_swin.weights.formats.format import (
    Format,
    every,
    needs_four_stages,
    needs_one_window,
)
from ssl_swin.weights.formats.huggingface import HUGGINGFACE
from ssl_swin.weights.formats.key_maps import Rule, rename
from ssl_swin.weights.formats.openmmlab import OPENMMLAB


@dataclass(frozen=True)
class DenseNames:
    """How one implementation names a network around an encoder.

    Attributes:
        name: As `--format` and `--to` have it.
        encoder: Names of the encoder, in files that are written.
        norms: Key map of the maps' norms, ours as `norms.{s}.{p}`, theirs within the encoder.
        words: Parts of the names of heads that differ there, by ours.
    """

    name: str
    encoder: Format
    norms: tuple[Rule, ...]
    words: Mapping[str, str] = field(default_factory=dict)

    def head_name(self, ours: str) -> str:
        """Return the name there of a tensor of a head."""
        return ".".join(self.words.get(part, part) for part in ours.split("."))

    def our_head_name(self, theirs: str) -> str:
        """Return our name of a tensor of a head there."""
        back = {value: key for key, value in self.words.items()}
        return ".".join(back.get(part, part) for part in theirs.split("."))


_NORMS = rename({"norms.{s}.{p}": "norm{s}.{p}"})
_LIMITS = every(needs_four_stages, needs_one_window)  # whatever the images of the pretraining were
OF_OPENMMLAB = DenseNames("openmmlab", replace(OPENMMLAB, limits=_LIMITS), _NORMS)
OF_SWIN = DenseNames(
    "swin",
    replace(
        DETECTRON2,
        title="Swin's segmentation and detection code",
        prefixes=("backbone.",),
        limits=_LIMITS,
    ),
    _NORMS,
)
OF_TRANSFORMERS = DenseNames(
    "huggingface",
    replace(HUGGINGFACE, title="transformers' UperNet", prefixes=("backbone.",)),
    rename({"norms.{s}.{p}": "hidden_states_norms.stage{s+1}.{p}"}),
    {"bn": "batch_norm", "conv_seg": "classifier"},
)
_BY_ENCODER = {"openmmlab": OF_OPENMMLAB, "detectron2": OF_SWIN, "huggingface": OF_TRANSFORMERS}


def dense_names_of(known: Format) -> DenseNames:
    """Return how a file names a network around its encoder.

    Args:
        known: Format of the encoder's names.

    Raises:
        UserError: If no such network is known.
    """
    if known.name not in _BY_ENCODER or known.kinds != ("Swin V1",):
        raise UserError(
            f"it holds the encoder of {known.title}, and no segmenter or detector; these are read "
            "with a Swin V1, of OpenMMLab's programs, Swin's own code or transformers"
        )
    return _BY_ENCODER[known.name]
