"""From the folder of a network to a file that is proved equal to it."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch.export import Dim, ExportedProgram

from ssl_swin.deploy.card import card_beside, card_of
from ssl_swin.deploy.facts import facts_of
from ssl_swin.deploy.network import Network, Outputs, PixelType, example_pixels, load_network
from ssl_swin.deploy.proof import Difference, prove
from ssl_swin.deploy.targets.base import Target, check_installed, target_of
from ssl_swin.errors import UserError
from ssl_swin.files import fsync, temporary_folder, write_atomically

_EXAMPLES = 2  # a batch of one would be taken for the only size


class Deployed(NamedTuple):
    """What was written.

    Attributes:
        network: What was exported.
        difference: How far the file is from it.
        files: The file, and what belongs to it.
        usage: One line that runs it.
    """

    network: Network
    difference: Difference
    files: tuple[Path, ...]
    usage: str


def deploy(
    folder: Path,
    out: Path,
    *,
    to: str,
    outputs: Outputs | None,
    dtype: PixelType,
    img_size_px: tuple[int, int] | None = None,
) -> Deployed:
    """Export a network, run the file, and only then give it its name.

    Args:
        folder: Of a backbone, a classifier or a segmenter.
        out: File to write.
        to: One of `TARGETS`.
        outputs: See `load_network`.
        dtype: Of the pixels that the file takes.
        img_size_px: See `load_network`.

    Raises:
        UserError: If an extra is missing, the ending is another, the network cannot be exported, or
            the file does not compute what the network does.
    """
    target = target_of(to)
    check_target(target, out)
    network = load_network(folder, outputs, img_size_px)
    with temporary_folder(out) as temporary, quiet():
        program, facts = _exported(network, dtype), facts_of(network, dtype)
        draft = temporary / out.name
        target.write(program, draft, facts, network.output_names)
        difference = prove(network, target.runner(draft), dtype)
        card = card_of(facts, target.title, difference, target.usage(Path(out.name)))
        write_atomically(card_beside(draft), card)
        files = tuple(_moved(file, out.parent) for file in sorted(draft.parent.iterdir()))
    fsync(out.parent)
    return Deployed(network, difference, files, target.usage(out))


def check_target(target: Target, out: Path) -> None:
    """Refuse another ending and what would be written over, and name the extra that is missing.

    Args:
        target: What is to be written.
        out: Where to.

    Raises:
        UserError: If it is so.
    """
    if out.suffix != target.ending:
        raise UserError(f"{out}: a file of {target.title} ends in {target.ending}")
    for path in (card_beside(out), *target.beside(out)):
        if os.path.lexists(path):
            raise UserError(f"{path} belongs to {out}, and exists: remove it, or choose a new name")
    check_installed(target, target.needs)


def _exported(network: Network, dtype: PixelType) -> ExportedProgram:
    pixels = example_pixels(network, _EXAMPLES, dtype)
    sizes = ({0: Dim("batch", min=1)},)
    try:
        with torch.no_grad():
            network.module(pixels)  # fills caches of layouts, which are no part of the program
            program = torch.export.export(
                network.module, (pixels,), dynamic_shapes=sizes, strict=True
            )
    except Exception as error:  # of torch's many kinds, of encoders that users brought
        problem = " ".join(str(error).split())[:400]
        raise UserError(
            f"a {network.encoder.title} cannot be exported: torch.export says {problem}"
        ) from error
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _moved(file: Path, folder: Path) -> Path:
    fsync(file)
    os.replace(file, folder / file.name)
    return folder / file.name


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' remarks on their own matters off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
