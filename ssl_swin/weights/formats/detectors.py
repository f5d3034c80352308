"""Published Mask R-CNN and its Cascade: files of OpenMMLab's programs and Swin's code, in and out.

Both put the background last, have codes of boxes for each class, and number anchors by place, then
by shape, as is done here: tensors have other names there, and the same values.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ssl_swin.arguments import Above0, PathLike, PathName, Side, checked
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted
from ssl_swin.tasks.detecting import DetectInference
from ssl_swin.tasks.detector import Detector
from ssl_swin.weights.detector import LoadedDetector, load_detector
from ssl_swin.weights.formats.building import load_into
from ssl_swin.weights.formats.dense_files import (
    DenseFile,
    dropped,
    names_to_write,
    read_dense,
    uncounted,
    write_checkpoint,
)
from ssl_swin.weights.formats.dense_names import OF_OPENMMLAB, OF_SWIN, DenseNames
from ssl_swin.weights.formats.key_maps import Rule, rename, to_ours, to_theirs
from ssl_swin.weights.formats.parts_of_file import naming
from ssl_swin.weights.formats.report import Entry, LoadReport
from ssl_swin.weights.formats.segmenters import encoder_as

WRITTEN = {names.name: names for names in (OF_OPENMMLAB, OF_SWIN)}
NUM_STAGES = 3  # of the Cascade
_BOXES, _MASKS = "roi_head.bbox_head", "roi_head.mask_head"
_UNKNOWN = "not part of an R-CNN as it is known here"
_COMMON = rename(
    {
        "pyramid.inner_blocks.{s}.0.{p}": "neck.lateral_convs.{s}.conv.{p}",
        "pyramid.layer_blocks.{s}.0.{p}": "neck.fpn_convs.{s}.conv.{p}",
        "proposals.head.conv.0.0.{p}": "rpn_head.rpn_conv.{p}",
        "proposals.head.cls_logits.{p}": "rpn_head.rpn_cls.{p}",
        "proposals.head.bbox_pred.{p}": "rpn_head.rpn_reg.{p}",
    }
)


def _of_heads(ours: str, boxes: str, masks: str) -> dict[str, str]:
    """Return the names of what every stage has."""
    return {
        f"heads.box_heads.{ours}.classes.{{p}}": f"{boxes}.fc_cls.{{p}}",
        f"heads.box_heads.{ours}.codes.{{p}}": f"{boxes}.fc_reg.{{p}}",
        f"heads.mask_heads.{ours}.0.{{b}}.0.{{p}}": f"{masks}.convs.{{b}}.conv.{{p}}",
        f"heads.mask_heads.{ours}.1.conv5_mask.{{p}}": f"{masks}.upsample.{{p}}",
        f"heads.mask_heads.{ours}.1.mask_fcn_logits.{{p}}": f"{masks}.conv_logits.{{p}}",
    }


_STAGE, _THEIR_STAGE = "heads.box_heads.{s}.layers", f"{_BOXES}.{{s}}"
_STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
MASK_RCNN: tuple[Rule, ...] = (
    *_COMMON,
    *rename(
        {
            "heads.box_heads.0.layers.fc6.{p}": f"{_BOXES}.shared_fcs.0.{{p}}",
            "heads.box_heads.0.layers.fc7.{p}": f"{_BOXES}.shared_fcs.1.{{p}}",
            **_of_heads("0", _BOXES, _MASKS),
        }
    ),
)
CASCADE: tuple[Rule, ...] = (
    *_COMMON,
    *rename(
        {
            f"{_STAGE}.{{b}}.0.weight": f"{_THEIR_STAGE}.shared_convs.{{b}}.conv.weight",
            **{
                f"{_STAGE}.{{b}}.1.{name}": f"{_THEIR_STAGE}.shared_convs.{{b}}.bn.{name}"
                for name in _STATISTICS
            },
            f"{_STAGE}.5.{{p}}": f"{_THEIR_STAGE}.shared_fcs.0.{{p}}",
            **_of_heads("{s}", _THEIR_STAGE, f"{_MASKS}.{{s}}"),
        }
    ),
)
# What their configurations say of anchors and losses, which no tensor tells.
SETTINGS: dict[bool, dict[str, Any]] = {
    False: {"anchors_inside": False, "num_proposals": 1000, "proposal_loss": "l1"},
    True: {"anchors_inside": True, "num_proposals": 2000, "proposal_loss": "smooth_l1"},
}
ANCHORS: dict[str, Any] = {"anchor_scale": 8.0, "anchor_ratios": [0.5, 1.0, 2.0]}


@checked
def import_detector(
    path: PathLike,
    *,
    format_name: str | None = None,
    network_name: str | None = None,
    img_size_px: Side | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[Above0] | None = None,
    classes: Sequence[str] | None = None,
    inference: DetectInference | None = None,
) -> tuple[LoadedDetector, LoadReport]:
    """Load a Mask R-CNN or its Cascade on a Swin V1, with masks or without.

    Nothing that the file holds is executed. Every tensor is accounted for in the report.

    Args:
        path: A file of `torch.save`, as mmdetection or Swin's own code writes it.
        format_name: "openmmlab" or "swin"; None recognises it.
        network_name: Which of several networks in the file, as its message names them.
        img_size_px: Side of the images that the encoder is said to take; the detector takes any.
            None is the smallest whose last map holds a window.
        mean: Normalisation of the training, of pixel values in [0, 1]; None takes ImageNet's.
        std: Standard deviation per channel, as `mean`.
        classes: Their names, by label; None takes those in the file, or numbers.
        inference: How it looks at images; None is as in the recipes for COCO.

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
        cascade = f"{_BOXES}.0.fc_cls.weight" in file.others
        head, number = _head(file, cascade)
        names = _names(file, number, classes)
        model = Detector(file.encoder, num_classes=number, **head)
        model.rcnn.norms.load_state_dict(file.norms.state_dict())
        report = file.report + _load(model, CASCADE if cascade else MASK_RCNN, file)
    how = inference or DetectInference()
    loaded = LoadedDetector(model.eval(), names, file.mean, file.std, how, head)
    return loaded, report


def _head(file: DenseFile, cascade: bool) -> tuple[dict[str, Any], int]:
    """Return the settings of the network that tensors show, and its number of classes.

    Raises:
        UserError: If they show another one.
    """
    first = f"{_BOXES}.0" if cascade else _BOXES
    scores, codes = (_shape(file, f"{first}.{name}.weight") for name in ("fc_cls", "fc_reg"))
    number = scores[0] - 1
    if codes[0] != 4 * number:
        raise UserError(
            f"its boxes have {codes[0]} codes for {counted(number, 'class')}; known are 4 for each"
        )
    stages = {name.split(".")[2] for name in file.others if name.startswith(f"{_BOXES}.")}
    if cascade and len(stages) != NUM_STAGES:
        raise UserError(f"it has {len(stages)} stages; a Cascade here has {NUM_STAGES}")
    return {
        "cascade": cascade,
        "with_masks": any(name.startswith(f"{_MASKS}.") for name in file.others),
        "channels": _shape(file, "rpn_head.rpn_conv.weight")[0],
        "head_channels": scores[1],
        **ANCHORS,
        **SETTINGS[cascade],
        "box_loss": "giou" if cascade else "l1",
    }, number


def _shape(file: DenseFile, name: str) -> tuple[int, ...]:
    if name not in file.others or file.others[name].ndim < 2:
        raise UserError(f"it holds no Mask R-CNN and no Cascade of it: {name} is missing")
    return tuple(file.others[name].shape)


def _names(file: DenseFile, number: int, given: Sequence[str] | None) -> tuple[str, ...]:
    if given is not None and len(given) != number:
        raise UserError(f"it has {counted(number, 'class')}, and {len(given)} names are given")
    if given is not None:
        return tuple(given)
    return file.classes if len(file.classes) == number else tuple(map(str, range(number)))


def _load(model: Detector, rules: tuple[Rule, ...], file: DenseFile) -> LoadReport:
    """Load what is not the encoder's; return what became of it."""
    translated = to_ours(rules, file.others)
    if translated.incomplete:
        raise UserError(f"it lacks {', '.join(translated.incomplete[:3])}")
    parts = nn.ModuleDict(
        {name: getattr(model.rcnn, name) for name in ("pyramid", "proposals", "heads")}
    )
    report = LoadReport(
        renamed=tuple(
            entry._replace(name=file.given_as[entry.name])
            for entry in (*translated.report.matched, *translated.report.renamed)
        )
    )
    load_into(parts, uncounted(parts, translated.state) | translated.state, report)
    return report + dropped(file, translated.unknown, _UNKNOWN)


@checked
def export_detector(detector: PathLike, out: PathName, *, to: str) -> LoadReport:
    """Write a detector for other programs.

    Args:
        detector: Folder `detector/`, or a run's folder that holds one.
        out: File to write.
        to: "openmmlab" for mmdetection, "swin" for Swin's own detection code.

    Returns:
        What became of every tensor, by our names.

    Raises:
        UserError: Before anything is written, if there is none, or it cannot be represented there.
    """
    loaded = load_detector(detector)
    state, report = detector_as(loaded, names_to_write(to, WRITTEN, "detector"))
    write_checkpoint(Path(out), state, loaded.classes)
    return report


def detector_as(
    detector: LoadedDetector, names: DenseNames
) -> tuple[dict[str, Tensor], LoadReport]:
    """Translate a detector to the names of other programs.

    Args:
        detector: The detector.
        names: What things are called there.

    Raises:
        UserError: If they have no such encoder.
    """
    rcnn = detector.model.rcnn
    state, report = encoder_as(detector.model.encoder, names)
    rules = CASCADE if len(rcnn.heads.stages) > 1 else MASK_RCNN
    norms = to_theirs(names.norms, _norms_in(rcnn.state_dict()))
    others = to_theirs(rules, _without_norms(rcnn.state_dict()))
    assert not norms.unknown and not others.unknown
    prefix = names.encoder.prefixes[0]
    state |= {f"{prefix}{name}": tensor for name, tensor in norms.state.items()} | others.state
    entries = [
        *(Entry(e.name, f"{prefix}{e.became}", "another name") for e in norms.report.renamed),
        *others.report.renamed,
    ]
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return plain, report + LoadReport(renamed=tuple(entries))


def _norms_in(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith("norms.")}


def _without_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("norms.")}
