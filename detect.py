"""Trains a detector on a pretrained backbone: boxes, and masks of single objects, by Mask R-CNN.

python detect.py backbone=runs/pretrain/NAME data=coco data.root=FOLDER
python detect.py backbone=none model=swin_t data=coco data.root=FOLDER  # the control
"""

from ssl_swin.launch.script import run_script

if __name__ == "__main__":
    run_script("detect")
