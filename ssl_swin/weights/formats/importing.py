"""Weights of any known format become a backbone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ssl_swin.arguments import Above0, Count, PathLike, Positive, Side, checked
from ssl_swin.encoders.build import build_encoder
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import (
    Backbone,
    check_same_architecture,
    describes_encoder,
    encoder_args,
    save_backbone,
    save_classifier,
    save_extra_weights,
)
from ssl_swin.weights.formats.building import build_swin, load_encoder
from ssl_swin.weights.formats.head_classes import choose_classes
from ssl_swin.weights.formats.heads import with_classifier, with_simmim
from ssl_swin.weights.formats.known_formats import check_format
from ssl_swin.weights.formats.networks import Network, choose_network
from ssl_swin.weights.formats.parts_of_file import (
    Parts,
    assumptions,
    naming,
    normalisation,
    with_given,
)
from ssl_swin.weights.formats.report import LoadReport
from ssl_swin.weights.formats.run_checkpoints import ENCODER
from ssl_swin.weights.formats.tables import check_tables
from ssl_swin.weights.formats.translating import translate
from ssl_swin.weights.formats.weight_files import WeightFile, read_weights

_AWAY = (
    "; this checkpoint of an earlier version does not say how its model was built, but its run's "
    "folder does: give the path inside that"
)


@dataclass(frozen=True)
class ImportedBackbone(Backbone):
    """A backbone from elsewhere, and what its file held beside it.

    Attributes:
        simmim: The encoder in its SimMIM model, where the file had mask token and pixel head.
        classifier: The encoder with its head, where the caller asked to keep it.
    """

    simmim: SimMIM | None = None
    classifier: Classifier | None = None


@checked
def import_weights(
    path: PathLike,
    *,
    format_name: str | None = None,
    network_name: str | None = None,
    img_size_px: Side | None = None,
    window_size: Positive | None = None,
    pretrained_window_sizes: Sequence[Count] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[Above0] | None = None,
    num_classes: Positive | Literal["any"] | None = None,
    head_classes: Sequence[Count] | None = None,
    like: Encoder | None = None,
) -> tuple[ImportedBackbone, LoadReport]:
    """Loads weights of any format in `ssl_swin.weights.formats.known_formats.FORMATS`.

    Nothing that the file holds is executed. Every tensor is accounted for in the report.

    Args:
        path: A file of `torch.save` or safetensors, or a folder of timm's or Hugging Face's layout.
        format_name: A name in `formats.NAMES`; None recognises it.
        network_name: Which of several networks in the file, as its message names them; None takes
            the only one, or the trained one of a pair.
        img_size_px: Side of the square image that the model is to take. It is that of the
            training where the file does not tell it; otherwise the weights are resized to it.
        window_size: Window in tokens, where neither weights nor configuration tell it (some Swin
            V2).
        pretrained_window_sizes: Windows of a Swin V2 by stage, where nothing in the file tells it.
        mean: Normalisation of the training, of pixel values in [0, 1]. None takes the file's, or
            that of ImageNet for three channels.
        std: Standard deviation per channel, as `mean`.
        num_classes: Keep the classification head, which must be one of as many classes; None drops
            it, "any" keeps one if it is there. For 1000 classes, those are chosen of a head of
            ImageNet-22k.
        head_classes: Rows of the classification head to keep, in this order, as numbers from 0.
        like: An encoder of the architecture that is expected; None takes any.

    Raises:
        UserError: Naming the file, if it cannot be read safely, is of no known format or of another
            than named, holds tensors too many or too few, contradicts itself or the arguments, or
            does not tell a size that is not given.
    """
    file = read_weights(path)
    away = file.run is not None and not file.run.config
    with naming(file.path, _AWAY if away else ""):
        network = choose_network(file.sections, network_name or (ENCODER if file.run else None))
        check_format(network.format, format_name)
        state, report = translate(network)
        parts = Parts.of(state)
        told = network.format.settings(file.config)
        settings = with_given(told, pretrained_window_sizes, mean, std)
        is_told = describes_encoder(file.config) and network.format.name == "timm"
        if is_told and window_size is None:
            encoder = build_encoder(file.config["architecture"], encoder_args(file.config))
        else:
            build = network.format.build or build_swin
            encoder = build(parts.encoder | parts.tables, settings, img_size_px, window_size)
        if like is not None:
            check_same_architecture(encoder, like)
        report = load_encoder(encoder, parts.encoder, report)
        check_tables(encoder, parts.tables)
        report = report.dropping(parts.tables, "rebuilt from the sizes, and found equal")
        report, simmim = with_simmim(report, encoder, parts.simmim)
        head, chosen = choose_classes(parts.head, num_classes, head_classes)
        report, classifier = with_classifier(report, encoder, head, num_classes)
        means, stds = normalisation(encoder, settings)
        notes = _notes(file, network) + chosen + assumptions(encoder, settings, parts.tables)
        report = replace(report, notes=notes)
        imported = ImportedBackbone(encoder, means, stds, simmim, classifier)
        if img_size_px is not None and encoder.img_size_px != (img_size_px, img_size_px):
            return _resize(imported, report, img_size_px)
        return imported, report


def _notes(file: WeightFile, network: Network) -> tuple[str, ...]:
    """Lists what the user should know of where the weights come from."""
    if file.run is not None:
        return (file.run.note,)
    notes = [f"the network {network.name} is taken"] if network.is_one_of_several else []
    if any(name.startswith("decode_head.psp_modules.") for name in network.state):
        notes.append("its UPerNet is left out; `ssl-swin import --task segmentation` takes it")
    if any(name.startswith("roi_head.bbox_head.") for name in network.state):
        notes.append("its R-CNN is left out; `ssl-swin import --task detection` takes it")
    return tuple(notes)


def save_import(folder: Path, imported: ImportedBackbone, *, card: str) -> None:
    """Writes an import as a backbone folder, with its head for SimMIM or classes if it has one."""
    mean, std = imported.mean, imported.std
    if imported.classifier is not None:
        names = [str(number) for number in range(imported.classifier.head.out_features)]
        save_classifier(folder, imported.classifier, classes=names, mean=mean, std=std, card=card)
    else:
        save_backbone(folder, imported.encoder, mean=mean, std=std, card=card)
    if imported.simmim is not None:
        save_extra_weights(folder, imported.simmim.extra_weights())


def _resize(
    imported: ImportedBackbone, report: LoadReport, img_size_px: int
) -> tuple[ImportedBackbone, LoadReport]:
    """Fits the imported model to another image size."""
    old = imported.encoder
    encoder = resize_encoder(old, img_size_px=img_size_px)
    before, after = old.model.state_dict(), encoder.model.state_dict()
    changed = {name for name in after if after[name].shape != before[name].shape}
    reason = f"position biases for {img_size_px} px, as the original resizes them"
    resized = tuple(
        entry._replace(reason=reason)
        for entry in (*report.matched, *report.renamed)
        if entry.became in changed
    )
    taken = report.dropping({name: after[name] for name in changed}, "")
    report = replace(taken, dropped=report.dropped, resized=report.resized + resized)
    simmim, classifier = imported.simmim, imported.classifier
    if simmim is not None:
        simmim.encoder = encoder
    if classifier is not None:
        classifier.encoder = encoder
    return replace(imported, encoder=encoder), report
