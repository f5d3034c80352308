"""Values that a configuration works out for itself (L3)."""

import netrc
import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

WANDB_HOST = "api.wandb.ai"


def register_resolvers() -> None:
    """Makes `${auto_precision:}` and the others known to OmegaConf; safe to call again."""
    for resolver in (
        auto_device,
        auto_precision,
        backbone_name,
        choice,
        one_folder,
        run_dir,
        sweep_name,
        total_stride,
        wandb_offline,
    ):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def total_stride(patch_size_px: int, depths: Sequence[int]) -> int:
    """Image pixels per token of the last stage; each stage after the first halves the map."""
    stride_px: int = patch_size_px * 2 ** (len(depths) - 1)
    return stride_px


def auto_device() -> str:
    """A GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def auto_precision() -> str:
    """bf16 on a GPU, full precision on a CPU."""
    return "bf16-mixed" if auto_device() == "cuda" else "32-true"


def backbone_name(path: str) -> str:
    """Names a run after the backbone that it starts from."""
    if path in ("none", None):
        return "random"
    folder = Path(path)
    return folder.parent.name if folder.name == "backbone" else folder.name


def choice(group: str, *, _root_: DictConfig) -> str:
    """Names the option chosen of a config group.

    Hydra keeps the choices inside the configuration while it plans a sweep, and aside in a job.
    """
    hydra = _root_.get("hydra") or HydraConfig.get()
    return str(hydra.runtime.choices[group])


def one_folder(name: str) -> str:
    """Makes one folder's name of a text that may contain paths."""
    return name.replace("/", "_")


def run_dir(job: str, name: str) -> str:
    """Folder of this run: by its name, or in a sweep by what the sweep varies."""
    if _in_sweep():
        return str(HydraConfig.get().runtime.output_dir)
    return f"runs/{job}/{name}"


def sweep_name() -> str | None:
    """Groups the runs of a sweep; None outside one."""
    return Path(HydraConfig.get().sweep.dir).name if _in_sweep() else None


def wandb_offline() -> bool:
    """True unless a key for Weights & Biases is configured: then nobody is asked for one."""
    mode = os.environ.get("WANDB_MODE")
    if mode:
        return mode != "online"
    return not (os.environ.get("WANDB_API_KEY") or _netrc_has(WANDB_HOST))


def _in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _netrc_has(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
