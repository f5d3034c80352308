"""Images without boxes: where they are, and who marks objects in them."""

from pathlib import Path

from omegaconf import DictConfig

from ssl_swin.data.encoded import IMAGE
from ssl_swin.data.loading.few_labels import left_out_images
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.paired import UNLABELLED
from ssl_swin.data.loading.protocol import Split
from ssl_swin.data.remote.fetch import is_remote
from ssl_swin.data.shards.index_file import INDEX_NAME
from ssl_swin.errors import UserError
from ssl_swin.launch.printing import say
from ssl_swin.launch.targets import make
from ssl_swin.tasks.detection import Detection


def teach_softly(cfg: DictConfig, task: Detection, readers: dict[str, Split]) -> None:
    """Give a detector what learns from images without boxes, if `cfg.semi` names it.

    Args:
        cfg: Configuration of the job.
        task: The detector; its `semi` is set.
        readers: Data by split; `UNLABELLED` is added.

    Raises:
        UserError: If there are no images without boxes, or those with boxes are streamed.
    """
    semi = cfg.get("semi")
    if semi is None or semi.get("_target_") is None:
        return
    if not isinstance(readers["train"], IndexedSplit):
        raise UserError(
            "data.reader=stream has no place that two sources could keep: semi takes images that "
            "are read by index, as data.reader=indexed reads shards"
        )
    readers[UNLABELLED] = _unlabelled_images(cfg, readers["train"])
    say(f"without boxes: {readers[UNLABELLED].summary()}")
    task.semi = make(semi)(task)


def _unlabelled_images(cfg: DictConfig, train: Split) -> Split:
    """Open the folder or shards that are named, or take what labels leave out."""
    root = cfg.semi.get("unlabelled_root")
    if root is None:
        return left_out_images(train)
    has_index = is_remote(str(root)) or (Path(root) / INDEX_NAME).is_file()
    opened = open_splits(
        root,
        "indexed" if has_index else "folder",
        how_to_make=f"semi.unlabelled_root={root} is to hold images or their shards",
        order=OrderConstants(**cfg.data.order),
        cache=cfg.data.cache,
        members=(IMAGE,),
        folder=None if has_index else {"labelled": False, "splits": False, "masks": False},
    )
    return opened["train"]
