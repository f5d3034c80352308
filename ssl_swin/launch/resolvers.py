"""Values that a configuration works out for itself."""

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ssl_swin.arguments import shown
from ssl_swin.errors import UserError
from ssl_swin.launch.command_line import command
from ssl_swin.quoting import shell_path
from ssl_swin.runs.names import MOST_BYTES_OF_ANY, check_name, folder_name

WANDB_SERVER = "https://api.wandb.ai"
MOST_DISPLAYED = 128  # characters of a name that W&B takes
NOT_IN_NAMES = {  # of jobs of sweeps by earlier versions
    "name",
    "resume",
    "num_workers",
    "data.root",
    "logger",
    "trainer.devices",
    "trainer.enable_progress_bar",
}
WEIGHT_FILES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


def register_resolvers() -> None:
    """Makes `${auto_precision:}` and the others known to OmegaConf; safe to call again."""
    for resolver in (
        as_shell_word,
        auto_device,
        auto_precision,
        backbone_name,
        choice,
        command,
        display_name,
        job_folder,
        job_type,
        one_folder,
        run_dir,
        start_name,
        sweep_name,
        wandb_offline,
    ):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def as_shell_word(path: object) -> str:
    """Writes a path or an address so that a command that holds it can be pasted."""
    return shell_path(str(path))


def auto_device() -> str:
    """A GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def auto_precision() -> str:
    """bf16 on a GPU, full precision on a CPU."""
    return "bf16-mixed" if auto_device() == "cuda" else "32-true"


def backbone_name(reference: str | None) -> str:
    """Names a run after the backbone that it starts from, wherever that is.

    A run or its backbone gives the run's name, a file its name without the ending, and what comes
    from elsewhere its address in one word: hf-hub:USER/NAME gives USER_NAME, and
    wandb:ENTITY/PROJECT/NAME:VERSION gives NAME_VERSION.
    """
    if reference in ("none", None):
        return "random"
    if not isinstance(reference, str):
        raise UserError(f"backbone must be text, not empty, got {shown(reference)}")
    scheme, _, address = reference.partition(":")
    if scheme == "wandb":
        return address.rpartition("/")[2].replace(":", "_")
    if scheme in ("hf-hub", "timm"):
        return address.replace("/", "_").replace("@", "_")
    path = Path(reference)
    if path.suffix in WEIGHT_FILES:
        return path.stem
    return path.parent.name if path.name == "backbone" else path.name


def choice(group: str, *, _root_: DictConfig) -> str:
    """Names the option chosen of a config group.

    Hydra keeps the choices inside the configuration while it plans a sweep, and aside in a job.
    """
    hydra = _root_.get("hydra") or HydraConfig.get()
    return str(hydra.runtime.choices[group])


def display_name(name: str) -> str:
    """Names a run on dashboards.

    A job on a backbone, which bears its name, is told from the pretraining, and the jobs of a sweep
    by what the sweep varies.
    """
    job = job_type()
    words = [str(name)] if job in (None, "pretrain") else [str(job), str(name)]
    if _in_sweep():
        words.append(Path(HydraConfig.get().runtime.output_dir).name)
    return " ".join(words)[:MOST_DISPLAYED]


def job_type() -> str | None:
    """Returns the kind of job: pretrain, finetune or linear_probe; None where no job runs."""
    return str(HydraConfig.get().job.name) if HydraConfig.initialized() else None


def one_folder(name: str) -> str:
    """Returns a run's name, which a folder is called by.

    Raises:
        UserError: If no folder can be.
    """
    return check_name(str(name))


def job_folder(overrides: str, name: str, sweep_dir: str) -> str:
    """Returns the name of a sweep's job: what the sweep varies, or else the run's name.

    A folder that an earlier version named by the whole command line is found again.
    """
    whole = overrides
    if _in_sweep():
        kept = (o for o in HydraConfig.get().overrides.task if o.split("=")[0] not in NOT_IN_NAMES)
        whole = ",".join(sorted(kept))
    old = whole.replace("/", "_")
    if old and len(old.encode()) <= MOST_BYTES_OF_ANY and (Path(sweep_dir) / old).is_dir():
        return old
    return folder_name(overrides or str(name))


def run_dir(job: str, name: str) -> str:
    """Folder of this run: by its name, or in a sweep by what the sweep varies."""
    if _in_sweep():
        return str(HydraConfig.get().runtime.output_dir)
    return f"runs/{job}/{name}"


def start_name(model: str, backbone: str | None) -> str:
    """Names a pretraining by its model, or by the weights whose architecture it takes."""
    return backbone_name(backbone) if model == "from_backbone" and backbone else model


def sweep_name() -> str | None:
    """Groups the runs of a sweep; None outside one."""
    return Path(HydraConfig.get().sweep.dir).name if _in_sweep() else None


def wandb_offline() -> bool:
    """True unless a key for Weights & Biases is configured: then nobody is asked for one."""
    mode = os.environ.get("WANDB_MODE")
    if mode:
        return mode != "online"
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or WANDB_SERVER).netloc
    return not (os.environ.get("WANDB_API_KEY") or _netrc_has(server))


def _in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _netrc_has(host: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC") or None).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
