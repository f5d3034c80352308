"""The nearest of a set of images, with small pictures of them."""

import threading
from typing import Any

import numpy as np

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError
from ssl_swin.inference.pictures import picture, sample_of_row
from ssl_swin.inference.search import LEAST_LIKE, unit
from ssl_swin.inference.vector_files import Vectors
from ssl_swin.serving.batching import Row
from ssl_swin.serving.limits import Refusal
from ssl_swin.serving.pictures import data_url
from ssl_swin.serving.questions import Question, Served


def neighbour_question(
    served: Served, vectors: Vectors, dataset: ImageDataset, *, num: int
) -> Question:
    """Return the question for the images of a set that are nearest to one.

    Args:
        served: Answers with vectors too, which are compared.
        vectors: Of the set, as `ssl-swin embed` wrote them.
        dataset: The images of the set.
        num: How many are told, at most.

    Raises:
        UserError: If the vectors are not of these images, or not of this network.
    """
    search = _Search(vectors, dataset, served.view.pixels, num)
    vector = served.questions["embed"]
    try:
        first = served.decoder()(search.sample(0))
    except Refusal as refusal:
        raise UserError(f"{refusal.message}, the first image of --images") from refusal
    search.check_like(vector.compute(first[None])["vectors"][0].numpy())
    return Question(
        "neighbours",
        f"the nearest of {len(vectors.names):,} images",
        vector.compute,
        lambda row: {"neighbours": search.nearest(row)},
    )


class _Search:
    """Vectors of length 1, and the images that they are of."""

    def __init__(
        self, vectors: Vectors, dataset: ImageDataset, pixels: PixelFormat, num: int
    ) -> None:
        self._names, self._labels = vectors.names, vectors.labels
        self._unit = unit(vectors.vectors)
        self._dataset, self._pixels = dataset, pixels
        self._num = min(num, len(self._names))
        self._reading = threading.Lock()  # a set may have one open file

    def sample(self, row: int) -> Any:
        """Return the image of a row."""
        with self._reading:
            return sample_of_row(self._dataset, row, self._names[row], len(self._names))

    def check_like(self, first: Any) -> None:
        """Refuse another network than that which made the vectors.

        Raises:
            UserError: If the vector of the first image is another.
        """
        if len(first) != self._unit.shape[1] or unit(first[None])[0] @ self._unit[0] < LEAST_LIKE:
            raise UserError(
                "this network does not make the vectors of --vectors: give the one that did, with "
                "--stage, --pooling and --crop-ratio as they were"
            )

    def nearest(self, row: Row) -> list[dict[str, Any]]:
        """Return the nearest images, the nearest first."""
        cosines = self._unit @ unit(row["vectors"].numpy()[None])[0]
        rows = np.argpartition(-cosines, self._num - 1)[: self._num]
        return [self._told(int(at), float(cosines[at])) for at in rows[np.argsort(-cosines[rows])]]

    def _told(self, row: int, cosine: float) -> dict[str, Any]:
        return {
            "name": self._names[row],
            "label": self._labels[row],
            "cosine": round(cosine, 4),
            "picture": self._picture(row),
        }

    def _picture(self, row: int) -> str | None:
        try:
            return data_url(picture(self.sample(row), self._pixels))
        except UserError:  # it was there when the server began
            return None
