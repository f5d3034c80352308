"""Trains a class for every pixel on a pretrained backbone: semantic segmentation by UPerNet.

python segment.py backbone=runs/pretrain/NAME data=masks data.root=FOLDER classes=[road,car]
python segment.py backbone=none model=swin_t data=masks data.root=FOLDER classes=2  # the control
"""

from ssl_swin.launch.script import run_script

if __name__ == "__main__":
    run_script("segment")
