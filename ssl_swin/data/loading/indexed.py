"""A split whose samples are read by index: from indexed shards, folders and archives alike."""

import numpy as np

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.loading.evaluation import EvalLoader
from ssl_swin.data.loading.exact import ExactLoader, OrderedBatches
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import Collate, LoaderConfig, MakeSample
from ssl_swin.plurals import counted


class IndexedSplit:
    """Exact loaders over any data set."""

    def __init__(self, dataset: ImageDataset, order: OrderConstants, warning: str = "") -> None:
        """Set the split up; nothing is read yet.

        Args:
            dataset: The samples of the split.
            order: Constants of the training order.
            warning: What the user should know of this way of reading; empty for nothing.
        """
        self.dataset = dataset
        self.order = order
        self.warning = warning
        self.classes = dataset.classes
        self.num_samples = len(dataset)
        self.fingerprint = dataset.fingerprint

    def summary(self) -> str:
        """Return one line on what is read."""
        lengths = self.dataset.shard_lengths
        shards = "" if lengths is None else f" in {counted(len(lengths), 'shard')}"
        return f"{counted(self.num_samples, 'image')}{shards}"

    def train_loader(
        self, make_sample: MakeSample, collate: Collate, config: LoaderConfig, *, seed: int
    ) -> ExactLoader:
        """Return a loader of shuffled batches: each image at most once an epoch over all ranks.

        Args:
            make_sample: Makes a training example of an encoded sample and the epoch.
            collate: Makes a batch of examples.
            config: Size of the batches, and which part of them this rank loads.
            seed: Seed of the sample order.
        """
        lengths = self.dataset.shard_lengths
        batches = OrderedBatches(
            self.dataset,
            make_sample,
            collate,
            config,
            shard_lengths=np.array([self.num_samples]) if lengths is None else lengths,
            constants=self.order,
            seed=seed,
        )
        return ExactLoader(batches)

    def eval_loader(
        self, make_sample: MakeSample, collate: Collate, config: LoaderConfig
    ) -> EvalLoader:
        """Return a loader of every image once, in a fixed order, distributed over the ranks.

        Args:
            make_sample: Makes an example of an encoded sample and the epoch, which is 0.
            collate: Makes a batch of examples.
            config: Size of the batches, and which of them this rank loads.
        """
        return EvalLoader(self.dataset, make_sample, collate, config)
