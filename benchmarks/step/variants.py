"""Who competes: the original, others' implementations and ours, on the same weights."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from benchmarks.step.peers import PEERS
from benchmarks.step.workload import Workload, autocast, load_settings
from ssl_swin.encoders.windows.visible import Binning
from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.optim.param_groups import weight_decay_groups
from ssl_swin.training.clipping import clip_gradients

MAX_GRADIENT_NORM = 5.0
RECIPE: dict[str, float] = {"lr": 5e-5, "weight_decay": 0.05}  # for 128 images; no time hangs on it

Prepared = Any  # a mask in the form that a variant's model takes


@dataclass(frozen=True)
class Variant:
    """One way of doing the step.

    Attributes:
        name: As in `NAMES`.
        model: What is trained, on the device.
        forward: Images and prepared mask to the loss.
        prepare: What a loader does: brings a mask into the form that `forward` takes.
        optimizer: Of the model.
        workload: What it does.
        is_simmim: Whether its loss is that of the paper, and so comparable.
        clip: Clips gradients to a norm: torch's way, or the one of our jobs.
    """

    name: str
    model: nn.Module
    forward: Callable[[Tensor, Prepared], Tensor]
    prepare: Callable[[Tensor], Prepared]
    optimizer: Optimizer
    workload: Workload
    is_simmim: bool = True
    clip: Callable[[Sequence[nn.Parameter], float], Tensor] = clip_grad_norm_

    @property
    def images(self) -> Tensor:
        """The batch."""
        return self.workload.images

    def loss(self, mask: Prepared) -> Tensor:
        """Runs the forward pass in the workload's precision; the mask is a prepared one."""
        with autocast(self.workload):
            return self.forward(self.images, mask)

    def step(self, mask: Prepared) -> None:
        """Trains once on a prepared mask."""
        self.loss(mask).backward()  # type: ignore[no-untyped-call]
        self.clip([*self.model.parameters()], MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()


@dataclass(frozen=True)
class Absent:
    """A variant that cannot take part."""

    name: str
    reason: str


def build(name: str, workload: Workload, original: ModuleType | None) -> Variant | Absent:
    """Builds a variant with the workload's weights.

    Args:
        name: One of `NAMES`.
        workload: What all are given.
        original: The original's module, if there is a checkout of it.

    Returns:
        The variant, or why it cannot take part.
    """
    try:
        if name in PEERS:
            return _theirs(name, workload, original)
        return _ours(name, workload, **_OURS[name])
    except (UserError, ImportError) as error:
        return Absent(name, str(error))


def _ours(
    name: str,
    workload: Workload,
    *,
    is_sparse: bool = False,
    has_one_mask: bool = False,
    is_compiled: bool = False,
) -> Variant:
    encoder = workload.fresh_encoder()
    encoder.load_state_dict(workload.encoder.state_dict())
    model: Any
    if is_sparse:
        torch.manual_seed(workload.seed)  # for the decoder, which only this objective has
        model = instantiate(load_settings("objective=simmim_sparse").objective)(encoder)
    else:
        model = SimMIM(encoder)
        model.load_state_dict(workload.weights.state_dict())
    model.to(workload.device)
    if is_compiled:
        encoder.compile_blocks()

    def pack(mask: Tensor) -> tuple[Tensor, Binning]:
        chosen = mask[:1].expand_as(mask) if has_one_mask else mask
        return chosen, encoder.windows.bin_visible(chosen).to(workload.device)

    return Variant(
        name,
        model,
        lambda images, mask: model.training_loss(images, *mask),
        pack if is_sparse else lambda mask: (mask,),
        AdamW(weight_decay_groups(model, **RECIPE, policy="official"), fused=True),
        workload,
        is_simmim=not is_sparse,
        clip=clip_gradients,
    )


def _theirs(name: str, workload: Workload, original: ModuleType | None) -> Variant:
    """Trains as the original does: a mask of patches from the loader, AdamW with its defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at building, of others' code
        peer = PEERS[name](workload, original)
    peer.model.train().to(workload.device)
    height_px, width_px = workload.encoder.img_size_px
    patch_px = workload.encoder.patch_size_px
    grid = height_px // patch_px, width_px // patch_px
    return Variant(
        name,
        peer.model,
        peer.loss,
        lambda mask: expand_mask(mask, grid).to(peer.mask_dtype),
        AdamW(original_groups(peer.model), lr=RECIPE["lr"]),
        workload,
    )


def original_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Splits parameters as the original does: vectors and the mask token are not decayed."""
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_spared = parameter.ndim == 1 or name.endswith((".bias", "mask_token"))
        (rest if is_spared else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": RECIPE["weight_decay"]},
        {"params": rest, "weight_decay": 0.0},
    ]


_OURS: Mapping[str, dict[str, bool]] = {
    "dense": {},
    "dense_compiled": {"is_compiled": True},
    "sparse": {"is_sparse": True},
    "sparse_shared_mask": {"is_sparse": True, "has_one_mask": True},
    "sparse_compiled": {"is_sparse": True, "is_compiled": True},
}
NAMES = (*PEERS, *_OURS)
