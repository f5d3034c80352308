"""Pretrains a Swin Transformer on unlabelled images.

python pretrain.py                                            # a demo that needs nothing
python pretrain.py model=swin_b data=shards data.root=shards  # on images packed by `ssl-swin pack`
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from ssl_swin.launch.script import run_job, run_script


@hydra.main(version_base="1.3", config_path="conf", config_name="pretrain")
def pretrain(cfg: DictConfig) -> None:
    """Runs the job that the command line composes."""
    run_job("pretrain", cfg)


if __name__ == "__main__":
    run_script(pretrain, Path(__file__).parent / "conf")
