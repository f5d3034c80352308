"""What a file holds on top of an encoder: a SimMIM or a classification head."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.formats.building import load_into
from ssl_swin.weights.formats.report import Entry, LoadReport
from ssl_swin.weights.formats.simmim_head import PARTS

HEAD = "head.fc."  # before its names, in our terms


def with_simmim(
    report: LoadReport, encoder: Encoder, parts: Mapping[str, Tensor]
) -> tuple[LoadReport, SimMIM | None]:
    """Puts an encoder into its SimMIM model, if mask token and pixel head are both there.

    Returns:
        The report with what was not taken, and the model.

    Raises:
        UserError: If they are not those of the encoder.
    """
    absent = [name for name in PARTS if name not in parts]
    if absent:
        missing = tuple(Entry(name, "", "not a SimMIM model") for name in absent)
        if parts:
            report = report.dropping(parts, f"of no use without {', '.join(absent)}")
        return report + LoadReport(missing=missing), None
    model = SimMIM(encoder)
    load_into(model, {**model.state_dict(), **parts}, report)
    return report, model


def with_classifier(
    report: LoadReport,
    encoder: Encoder,
    head: dict[str, Tensor],
    num_classes: int | Literal["any"] | None,
) -> tuple[LoadReport, Classifier | None]:
    """Puts an encoder into a classifier, if the head is to be kept.

    Args:
        report: So far.
        encoder: Encoder with its weights.
        head: Tensors of the head, or none.
        num_classes: Number of classes that it must have; None drops it, "any" keeps it where there
            is one that a classifier here can have.

    Raises:
        UserError: If there is no head, one of another number of classes, or one on features that
            no classifier here has.
    """
    size = len(head[f"{HEAD}bias"]) if f"{HEAD}bias" in head else 0
    if num_classes is None or (num_classes == "any" and not size):
        return report.dropping(head, f"a head of {size} classes, which a backbone has not"), None
    if num_classes == "any":
        if encoder.for_finetuning() is not encoder:
            return report.dropping(head, "a head on features that no classifier here has"), None
        num_classes = size
    if num_classes != size:
        has = f"a head of {size} classes" if size else "no classification head"
        raise UserError(f"it has {has}, and one of {num_classes} classes is to be kept")
    classifier = Classifier(encoder, num_classes=num_classes)
    if classifier.encoder is not encoder:
        raise UserError(
            f"its head cannot be kept: a {encoder.title} classifies here with a table of position "
            "biases in every block and a norm of pooled features, as it is fine-tuned, and this "
            "one has not both"
        )
    load_into(classifier.head, {n.removeprefix(HEAD): t for n, t in head.items()}, report)
    return report, classifier
