"""Making a data set on first use."""

from pathlib import Path

from ssl_swin.arguments import Count, Name, Positive, checked
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.shards.index import load_index
from ssl_swin.data.synthetic.dataset import SyntheticDataset
from ssl_swin.errors import UserError

VAL_SEED_OFFSET = 1  # the validation images are other drawings, not held-out training images


@checked
def prepare_demo(
    root: Name, *, num_train: Positive, num_val: Positive, size_px: Positive, seed: Count
) -> None:
    """Draw the demo's images and pack them into `root`, unless that has been done.

    Args:
        root: Folder of the shards.
        num_train: Training images.
        num_val: Validation images.
        size_px: Side of each image.
        seed: Seed of the images.

    Raises:
        UserError: If `root` holds a set of other sizes.
    """
    folder = Path(root)
    if not (folder / "index.json").exists():
        print(f"drawing {num_train + num_val} images into {folder} (first use only)", flush=True)
        sources = {
            "train": SyntheticDataset(num_train, size_px, seed),
            "val": SyntheticDataset(num_val, size_px, seed + VAL_SEED_OFFSET),
        }
        pack(sources, folder, seed=seed)
    index = load_index(folder)
    found = {split: index.num_samples(split) for split in index.splits}
    if found != {"train": num_train, "val": num_val}:
        raise UserError(
            f"{folder} holds {found}, not the {num_train} + {num_val} images asked for: "
            "set data.root to another folder, or remove this one"
        )
