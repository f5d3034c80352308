"""Fine-tunes a pretrained backbone into a classifier.

python finetune.py backbone=runs/pretrain/NAME data=shards data.root=shards
python finetune.py backbone=none model=swin_t data=shards data.root=shards  # the control
"""

from ssl_swin.launch.script import run_script

if __name__ == "__main__":
    run_script("finetune")
