"""Pretrains a Swin Transformer on unlabelled images.

python pretrain.py                                            # a demo that needs nothing
python pretrain.py model=swin_b data=shards data.root=shards  # on images packed by `ssl-swin pack`
"""

from ssl_swin.launch.script import run_script

if __name__ == "__main__":
    run_script("pretrain")
