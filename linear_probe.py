"""Probes frozen features: a linear classifier and nearest neighbours.

python linear_probe.py backbone=runs/pretrain/NAME data=shards data.root=shards
python linear_probe.py backbone=none model=swin_t data=shards data.root=shards  # the control
"""

from ssl_swin.launch.script import run_script

if __name__ == "__main__":
    run_script("linear_probe")
