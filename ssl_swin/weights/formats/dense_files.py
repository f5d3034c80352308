"""Files of whole segmenters and detectors: the encoder, a norm of each map, and the heads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_swin.encoders.dense_encoder import MapNorms
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path
from ssl_swin.weights.formats.building import (
    build_swin,
    load_encoder,
    load_into,
    usual_side_px,
)
from ssl_swin.weights.formats.dense_names import DenseNames, dense_names_of
from ssl_swin.weights.formats.key_maps import to_ours
from ssl_swin.weights.formats.known_formats import check_format
from ssl_swin.weights.formats.networks import Network, choose_network
from ssl_swin.weights.formats.parts_of_file import (
    Parts,
    assumptions,
    naming,
    normalisation,
    with_given,
)
from ssl_swin.weights.formats.report import Entry, LoadReport
from ssl_swin.weights.formats.tables import check_tables
from ssl_swin.weights.formats.translating import prefix_of, translate
from ssl_swin.weights.formats.weight_files import read_weights

_COUNT = "num_batches_tracked"  # of a batch norm, which nothing needs


@dataclass(frozen=True)
class DenseFile:
    """What a file holds of a segmenter or a detector.

    Attributes:
        encoder: With its weights.
        norms: Of each map, with theirs.
        others: Tensors outside of both by our names.
        given_as: Names in the file of these.
        names: How the file names things.
        mean: Normalisation, per channel.
        std: Normalisation, per channel.
        classes: Names of the classes, where the file tells them; else none.
        report: What became of the encoder's tensors and the norms'.
    """

    encoder: SwinEncoder
    norms: MapNorms
    others: dict[str, Tensor]
    given_as: dict[str, str]
    names: DenseNames
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    report: LoadReport


def read_dense(
    path: Path,
    *,
    format_name: str | None,
    network_name: str | None,
    img_size_px: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> DenseFile:
    """Read a file; nothing that it holds is executed.

    Args:
        path: A file of `torch.save` or safetensors, or a folder of transformers' layout.
        format_name: As `DenseNames.name`; None recognises it.
        network_name: Which of several networks in the file.
        img_size_px: Side of the images that the encoder is said to take; the network takes any.
        mean: Normalisation; None takes ImageNet's.
        std: Likewise.

    Raises:
        UserError: Naming the file, if it is none, or its tensors are not those of its kind.
    """
    file = read_weights(path)
    with naming(file.path, ""):
        network = choose_network(file.sections, network_name)
        names = dense_names_of(network.format)
        if format_name != names.name:
            check_format(network.format, format_name)
        state, report = translate(network)
        parts = Parts.of(state)
        settings = with_given(network.format.settings(file.config), None, mean, std)
        side = img_size_px or usual_side_px(parts.encoder)
        encoder = build_swin(parts.encoder | parts.tables, settings, side, None)
        report = load_encoder(encoder, parts.encoder, report)
        check_tables(encoder, parts.tables)
        report = report.dropping(parts.tables, "rebuilt from the sizes, and found equal")
        means, stds = normalisation(encoder, settings)
        norms, given = _norms(network, names, encoder)
        others = _others(network, names)
        taken = given.keys() | {network.given_as[name] for name in others.values()}
        report = replace(
            report,
            renamed=tuple(entry for entry in report.renamed if entry.name not in taken),
            dropped=tuple(entry for entry in report.dropped if entry.name not in taken),
            notes=assumptions(encoder, settings, parts.tables),
        )
        report += _as_report(given)
        return DenseFile(
            encoder,
            norms,
            {ours: network.state[theirs] for ours, theirs in others.items()},
            {ours: network.given_as[theirs] for ours, theirs in others.items()},
            names,
            means,
            stds,
            _classes(file.meta, file.config),
            report,
        )


def _norms(
    network: Network, names: DenseNames, encoder: SwinEncoder
) -> tuple[MapNorms, dict[str, str]]:
    """Return the norms of the maps, and our names of their tensors by those in the file."""
    prefix = prefix_of(network.state, network.format)
    inside = {n.removeprefix(prefix): t for n, t in network.state.items() if n.startswith(prefix)}
    translated = to_ours(names.norms, inside)
    norms = MapNorms(encoder.stage_dims)
    state = {name.removeprefix("norms."): t for name, t in translated.state.items()}
    given = {
        network.given_as[f"{prefix}{entry.name}"]: entry.became
        for entry in translated.report.renamed
    }
    report = LoadReport(
        renamed=tuple(Entry(file, ours.removeprefix("norms."), "") for file, ours in given.items())
    )
    load_into(norms, state, report)
    return norms, given


def _others(network: Network, names: DenseNames) -> dict[str, str]:
    """Return the names of tensors outside of the encoder, by ours."""
    prefix = prefix_of(network.state, network.format)
    outside = (name for name in network.state if not name.startswith(prefix))
    return {names.our_head_name(name): name for name in outside}


def _as_report(given: Mapping[str, str]) -> LoadReport:
    return LoadReport(
        matched=tuple(Entry(file, ours, "") for file, ours in given.items() if file == ours),
        renamed=tuple(
            Entry(file, ours, "another name") for file, ours in given.items() if file != ours
        ),
    )


def _classes(meta: Mapping[Any, Any], config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of classes that a file tells, in OpenMMLab's or transformers' way."""
    newer = meta.get("dataset_meta")
    told = newer.get("classes", newer.get("CLASSES")) if isinstance(newer, Mapping) else None
    told = told or meta.get("CLASSES")
    if isinstance(told, list | tuple) and all(isinstance(name, str) for name in told):
        return tuple(told)
    labels = config.get("id2label")
    if isinstance(labels, Mapping) and {*map(str, range(len(labels)))} == {*map(str, labels)}:
        by_text = {str(key): str(name) for key, name in labels.items()}
        return tuple(by_text[str(label)] for label in range(len(by_text)))
    return ()


def names_to_write(to: str, known: Mapping[str, DenseNames], kind: str) -> DenseNames:
    """Return the names by which a segmenter or detector is to be written.

    Args:
        to: What was asked for.
        known: All that it can be written by.
        kind: What it is.

    Raises:
        UserError: If it is none of these.
    """
    if to not in known:
        *others, last = known
        raise UserError(f"a {kind} is written as {', '.join(others)} or {last}, and not as {to!r}")
    return known[to]


def write_checkpoint(out: Path, state: Mapping[str, Tensor], classes: Sequence[str]) -> None:
    """Write a file as OpenMMLab's programs and Swin's own code save them.

    Args:
        out: The file.
        state: Tensors by the names there.
        classes: Names of the classes, by label.
    """
    with atomic_path(out) as temporary:
        torch.save({"state_dict": dict(state), "meta": {"CLASSES": list(classes)}}, temporary)


def load_part(module: nn.Module, prefix: str, file: DenseFile) -> LoadReport:
    """Load the tensors of a part that begin with some words, which must be all of them.

    Args:
        module: The part.
        prefix: The words, with a dot.
        file: The file.

    Returns:
        What became of them.

    Raises:
        UserError: Listing what is missing, too much or of another shape.
    """
    given = {ours: theirs for ours, theirs in file.given_as.items() if ours.startswith(prefix)}
    state = {name.removeprefix(prefix): file.others[name] for name in given}
    inner = {theirs: ours.removeprefix(prefix) for ours, theirs in given.items()}
    load_into(module, uncounted(module, state) | state, _as_report(inner))
    return _as_report({theirs: ours for ours, theirs in given.items()})


def uncounted(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the numbers of batches of a module's batch norms that a file does not have.

    Args:
        module: The module.
        state: Tensors of the file, by its names.
    """
    return {
        name: count
        for name, count in module.state_dict().items()
        if name.endswith(_COUNT) and name not in state
    }


def dropped(file: DenseFile, names: Iterable[str], reason: str) -> LoadReport:
    """Return the report on tensors that are not taken.

    Args:
        file: The file.
        names: Our names of them.
        reason: Why they are not.
    """
    return LoadReport(dropped=tuple(Entry(file.given_as[name], "", reason) for name in names))
