"""Published UPerNets: files of OpenMMLab's programs, Swin's own code and transformers, in and out.

Of all of them the head is UPerNet's, and what training sees besides is one convolution on the last
map but one. Other heads are refused by their tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ssl_swin.arguments import Above0, PathLike, PathName, Side, checked
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.tasks.segmenter import Segmenter, auxiliary_head
from ssl_swin.tasks.segmenting import Inference
from ssl_swin.tasks.upernet import FCNHead
from ssl_swin.weights.formats.dense_files import (
    DenseFile,
    dropped,
    load_part,
    names_to_write,
    read_dense,
    write_checkpoint,
)
from ssl_swin.weights.formats.dense_names import (
    OF_OPENMMLAB,
    OF_SWIN,
    OF_TRANSFORMERS,
    DenseNames,
)
from ssl_swin.weights.formats.exporting import check_representable, export_state
from ssl_swin.weights.formats.key_maps import to_theirs
from ssl_swin.weights.formats.parts_of_file import naming
from ssl_swin.weights.formats.report import Entry, LoadReport
from ssl_swin.weights.formats.transformers_upernet import write_upernet
from ssl_swin.weights.segmenter import LoadedSegmenter, load_segmenter

HEAD, AUXILIARY = "decode_head.", "auxiliary_head."
WRITTEN = {names.name: names for names in (OF_OPENMMLAB, OF_SWIN, OF_TRANSFORMERS)}
_UNKNOWN = "not part of a UPerNet as it is known here"
_LAST_NORM = "each map of a segmenter has a norm of its own, and this one is not used"


@checked
def import_segmenter(
    path: PathLike,
    *,
    format_name: str | None = None,
    network_name: str | None = None,
    img_size_px: Side | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[Above0] | None = None,
    classes: Sequence[str] | None = None,
    masks: MaskClasses | None = None,
    inference: Inference | None = None,
) -> tuple[LoadedSegmenter, LoadReport]:
    """Load a UPerNet on a Swin V1, as OpenMMLab, Swin's own code or transformers publish it.

    Nothing that the file holds is executed. Every tensor is accounted for in the report.

    Args:
        path: A file of `torch.save` or safetensors, or a folder of transformers' layout.
        format_name: "openmmlab", "swin" or "huggingface"; None recognises it.
        network_name: Which of several networks in the file, as its message names them.
        img_size_px: Side of the images that the encoder is said to take; the segmenter takes any.
            None is the smallest whose last map holds a window.
        mean: Normalisation of the training, of pixel values in [0, 1]; None takes ImageNet's.
        std: Standard deviation per channel, as `mean`.
        classes: Their names, by label; None takes those in the file, or numbers.
        masks: What the values of masks stand for; None takes values for classes, 255 for none.
        inference: How it looks at images; None is as in the recipes for ADE20K.

    Raises:
        UserError: Naming the file, if it cannot be read safely, holds no such network, or the names
            are not as many as its classes.
    """
    file = read_dense(
        Path(path),
        format_name=format_name,
        network_name=network_name,
        img_size_px=img_size_px,
        mean=mean,
        std=std,
    )
    with naming(Path(path), ""):
        number, channels = _classifier_shape(file, HEAD)
        names = _names(file, number, classes)
        model = Segmenter(file.encoder, channels=channels, num_classes=number)
        model.norms.load_state_dict(file.norms.state_dict())
        report = file.report + load_part(model.decode_head, HEAD, file)
        auxiliary, of_auxiliary = _auxiliary(file, number)
        unknown = [name for name in file.given_as if not name.startswith((HEAD, AUXILIARY))]
        report += of_auxiliary + dropped(file, unknown, _UNKNOWN)
    loaded = LoadedSegmenter(
        model.eval(),
        names,
        file.mean,
        file.std,
        inference or Inference(),
        masks or MaskClasses(),
        auxiliary,
    )
    loaded.masks.check_classes(number)
    return loaded, report


def _names(file: DenseFile, number: int, given: Sequence[str] | None) -> tuple[str, ...]:
    if given is not None and len(given) != number:
        raise UserError(f"it has {number} classes, and {len(given)} names are given")
    if given is not None:
        return tuple(given)
    return file.classes if len(file.classes) == number else tuple(map(str, range(number)))


def _auxiliary(file: DenseFile, num_classes: int) -> tuple[FCNHead | None, LoadReport]:
    """Return the head for training if the file has one that training here would have."""
    given = [ours for ours in file.given_as if ours.startswith(AUXILIARY)]
    if not given:
        return None, LoadReport()
    try:
        _, channels = _classifier_shape(file, AUXILIARY)
        head = auxiliary_head(file.encoder, channels=channels, num_classes=num_classes)
        return head.eval(), load_part(head, AUXILIARY, file)
    except UserError:
        return None, dropped(file, given, "another auxiliary head than training here has")


def _classifier_shape(file: DenseFile, prefix: str) -> tuple[int, int]:
    """Return the number of classes, and the width of a head."""
    weight = file.others.get(f"{prefix}conv_seg.weight")
    if weight is None or weight.ndim != 4:
        raise UserError(f"it holds no head of a UPerNet: {prefix}conv_seg.weight is missing")
    return weight.shape[0], weight.shape[1]


@checked
def export_segmenter(segmenter: PathLike, out: PathName, *, to: str) -> LoadReport:
    """Write a segmenter, with its auxiliary head if it has one, for other programs.

    Args:
        segmenter: Folder `segmenter/`, or a run's folder that holds one.
        out: File to write, or folder for transformers.
        to: "openmmlab" for mmsegmentation, "swin" for Swin's own segmentation code, "huggingface"
            for transformers' `UperNetForSemanticSegmentation`.

    Returns:
        What became of every tensor, by our names.

    Raises:
        UserError: Before anything is written, if there is none, or it cannot be represented there.
    """
    loaded = load_segmenter(segmenter)
    names = names_to_write(to, WRITTEN, "segmenter")
    state, report = segmenter_as(loaded, names)
    if names is OF_TRANSFORMERS:
        write_upernet(Path(out), state, loaded)
    else:
        write_checkpoint(Path(out), state, loaded.classes)
    return report


def segmenter_as(
    segmenter: LoadedSegmenter, names: DenseNames
) -> tuple[dict[str, Tensor], LoadReport]:
    """Translate a segmenter to the names of other programs.

    Args:
        segmenter: The segmenter.
        names: What things are called there.

    Raises:
        UserError: If they have no such encoder.
    """
    model = segmenter.model
    state, report = encoder_as(model.encoder, names)
    prefix = names.encoder.prefixes[0]
    norms = to_theirs(names.norms, _prefixed("norms.", model.norms.state_dict()))
    heads = _prefixed(HEAD, model.decode_head.state_dict())
    if segmenter.auxiliary is not None:
        heads |= _prefixed(AUXILIARY, segmenter.auxiliary.state_dict())
    else:
        missing = Entry(AUXILIARY[:-1], "", "only training sees it, and it is not there")
        report += LoadReport(missing=(missing,))
    given = {name: f"{prefix}{new}" for name, new, _ in norms.report.renamed}
    given |= {name: names.head_name(name) for name in heads}
    tensors = _prefixed("norms.", model.norms.state_dict()) | heads
    state |= {new: tensors[name].detach().cpu().contiguous() for name, new in given.items()}
    return state, report + LoadReport(
        matched=tuple(Entry(name, new, "") for name, new in given.items() if name == new),
        renamed=tuple(
            Entry(name, new, "another name") for name, new in given.items() if name != new
        ),
    )


def encoder_as(encoder: Encoder, names: DenseNames) -> tuple[dict[str, Tensor], LoadReport]:
    """Translate the encoder of a segmenter or detector, without the norm that ended it.

    Args:
        encoder: The encoder.
        names: What things are called there.

    Raises:
        UserError: If the programs have no such encoder.
    """
    if not isinstance(encoder, SwinEncoder) or encoder.kind not in names.encoder.kinds:
        raise UserError(
            f"{names.encoder.title} is written with {' or '.join(names.encoder.kinds)}, and this "
            f"is a {encoder.title}"
        )
    check_representable(encoder, names.encoder)
    state, report = export_state(encoder, {}, names.encoder)
    last = [entry for entry in report.renamed if entry.name.startswith("norm.")]
    for entry in last:
        del state[entry.became]
    report = report.dropping({entry.became for entry in last}, _LAST_NORM)
    return state, replace(report, missing=(), notes=())


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}
