"""Fine-tunes a pretrained backbone into a classifier.

python finetune.py backbone=runs/pretrain/NAME data=shards data.root=shards
python finetune.py backbone=none model=swin_t data=shards data.root=shards  # the control
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from ssl_swin.launch.script import run_job, run_script


@hydra.main(version_base="1.3", config_path="conf", config_name="finetune")
def finetune(cfg: DictConfig) -> None:
    """Runs the job that the command line composes."""
    run_job("finetune", cfg)


if __name__ == "__main__":
    run_script(finetune, Path(__file__).parent / "conf")
