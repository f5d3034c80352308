"""Probes frozen features: a linear classifier and nearest neighbours.

python linear_probe.py backbone=runs/pretrain/NAME data=shards data.root=shards
python linear_probe.py backbone=none model=swin_t data=shards data.root=shards  # the control
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from ssl_swin.launch.script import run_job, run_script


@hydra.main(version_base="1.3", config_path="conf", config_name="linear_probe")
def linear_probe(cfg: DictConfig) -> None:
    """Runs the job that the command line composes."""
    run_job("linear_probe", cfg)


if __name__ == "__main__":
    run_script(linear_probe, Path(__file__).parent / "conf")
