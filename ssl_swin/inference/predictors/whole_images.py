"""What looks at each image alone, at the size that it is stored in, and writes a folder of files.

A result depends on its image alone: no batch fills it up, which windows at a border would see.
"""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_swin.data.dataset import NO_LABEL, ImageDataset
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.loading.in_order import InOrderLoader
from ssl_swin.data.loading.protocol import BadSample, LoaderConfig
from ssl_swin.data.whole_samples import WholeSample, WholeTransform
from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path
from ssl_swin.inference.file_names import FileNames
from ssl_swin.inference.parts import Parts
from ssl_swin.inference.pictures import SHOWN_PX, as_picture, sample_of_row
from ssl_swin.inference.predictors.base import Options, Predictor
from ssl_swin.inference.run import Computing
from ssl_swin.inference.vector_files import BAD_HEADER, bad_rows, in_utf8, write_csv
from ssl_swin.inference.vectors import Rows, autocast
from ssl_swin.plurals import counted
from ssl_swin.reporting.drawing import FAINT
from ssl_swin.reporting.tiles import Line, Tile, draw_tiles, in_rows

Answer = TypeVar("Answer")
Picture = NDArray[np.uint8]
NO_TRUTH, JUDGED, UNREADABLE = range(3)  # what became of an image's truth
TRUTH = "truth"  # name of the value that says it
OVERLAYS = "overlays"
JPEG_QUALITY = 90
MOST_SHOWN, COLUMNS = 24, 6
_FILE_ENDINGS = (".csv", ".json", ".jsonl", ".parquet", ".png", ".jpg", ".npy", ".tar", ".zip")


class Looked(NamedTuple, Generic[Answer]):
    """What came of some images in a row."""

    answers: list[tuple[WholeSample, Answer]]  # of those that could be read
    bad_samples: list[BadSample]
    num_images: int  # read or not


class WholeImagePredictor(Predictor, Generic[Answer]):
    """A predictor of something in each image, one image after the other."""

    options = frozenset({"figure", "overlays"})
    batch_size = 1
    part_images = 32
    crop_ratio = 1.0
    writes_folder = True
    looks_at_members = True

    def __init__(self) -> None:
        """Set up what is told of the last result."""
        self._problem = ""
        self._told: list[str] = []

    @abstractmethod
    def transform(self, pixels: PixelFormat, classes: Sequence[str]) -> WholeTransform:
        """Return what decodes an image with its truth.

        Args:
            pixels: What a decoded image is.
            classes: Names of the truth's classes by label, as the data has them; none where it
                names none.
        """

    @abstractmethod
    def look(self, pixels: Tensor) -> Answer:
        """Return what is in an image.

        Args:
            pixels: (C, H, W), raw, on the device of the network.
        """

    @abstractmethod
    def values(self, answer: Answer, whole: WholeSample) -> dict[str, Tensor]:
        """Return what is kept of an image until all are done, each (1, ...) or of any length."""

    @abstractmethod
    def save(self, answer: Answer, folder: Path, name: str) -> None:
        """Write the file of an image, if it has one.

        Args:
            answer: What is in it.
            folder: The result's.
            name: Relative to the folder of these files, without an ending.
        """

    @abstractmethod
    def again(self, parts: Parts, rows: Collection[int]) -> Iterable[tuple[int, str, Answer]]:
        """Read again what was found in some images.

        Args:
            parts: All are whole.
            rows: Numbers of the images.

        Returns:
            Of each in turn its number, its name and what is in it.
        """

    @abstractmethod
    def over(self, answer: Answer, picture: Picture) -> Picture:
        """Return a picture (H, W, 3) of an image with the answer over it."""

    @abstractmethod
    def words(self, answer: Answer) -> str:
        """Return a few words on what is in an image."""

    @abstractmethod
    def save_tables(self, parts: Parts, dataset: ImageDataset) -> list[str]:
        """Write what is of all images into the draft, and return lines on it."""

    def check_out(self, out: Path) -> None:
        """See `Predictor.check_out`."""
        if out.suffix.lower() in _FILE_ENDINGS:
            raise UserError(
                f"{out}: {self.title} writes a folder of files: give a name without an ending, as "
                f"{out.with_suffix('')}"
            )

    def list_of_bad(self, out: Path) -> Path:
        """See `Predictor.list_of_bad`."""
        return out / "bad.csv"

    def looked(
        self, dataset: ImageDataset, computing: Computing, first_batch: int = 0
    ) -> "Iterator[Looked[Answer]]":
        """Look at every image, one after the other in their order; moves the network.

        Args:
            dataset: The images.
            computing: How they go through the network.
            first_batch: Number of the batch to begin with.
        """
        self.model.to(computing.device)
        config = LoaderConfig(computing.batch_size, computing.num_workers, rank=0, world_size=1)
        transform = self.transform(computing.view.pixels, dataset.classes)
        for read in InOrderLoader(dataset, transform, list, config, first_batch=first_batch):
            answers = []
            for whole in read.batch or ():
                pixels = whole.pixels.to(computing.device, non_blocking=True)
                with autocast(computing.device, computing.precision), torch.no_grad():
                    answers.append((whole, self.look(pixels)))
            yield Looked(answers, read.bad_samples, read.num_images)

    def rows(
        self,
        dataset: ImageDataset,
        computing: Computing,
        options: Options,
        parts: Parts,
        first_batch: int,
    ) -> Iterator[Rows]:
        """See `Predictor.rows`; writes the files of each image."""
        files = FileNames(name for part in parts.without_values() for name in part.names)
        for batch in self.looked(dataset, computing, first_batch):
            names, values = [], []
            for whole, answer in batch.answers:
                names.append(whole.name)
                file = files.add(names[-1])
                self.save(answer, parts.draft, file)
                if options.overlays:
                    self._save_overlay(answer, whole, parts.draft / OVERLAYS / f"{file}.jpg")
                values.append({**self.values(answer, whole), TRUTH: self._judged(whole)})
            yield Rows(
                names,
                torch.full((len(names),), NO_LABEL),
                _joined(values),
                batch.bad_samples,
                batch.num_images,
            )

    def write(
        self, parts: Parts, dataset: ImageDataset, pixels: PixelFormat, options: Options
    ) -> int:
        """See `Predictor.write`."""
        if bad := bad_rows(parts):
            write_table(self.list_of_bad(parts.draft), BAD_HEADER, bad)
        self._told = self.save_tables(parts, dataset)
        number = sum(len(part.names) for part in parts.without_values())
        if options.figure is not None:
            self._draw(parts, dataset, pixels, number, options.figure)
        parts.hand_over()
        return number

    def told(self) -> list[str]:
        """See `Predictor.told`."""
        return self._told

    def told_of_unreadable(self, parts: Parts, truths: str) -> list[str]:
        """Return a line on truths that could not be read; none if there are none.

        Args:
            parts: All are whole.
            truths: What they are, as "masks".
        """
        number = sum(int((part.values[TRUTH] == UNREADABLE).sum()) for part in parts if part.names)
        why = f"; one, since {self._problem}" if self._problem else ""
        return (
            [f"note: the {truths} of {counted(number, 'image')} are not used{why}"]
            if number
            else []
        )

    def _judged(self, whole: WholeSample) -> Tensor:
        self._problem = self._problem or whole.problem
        state = JUDGED if whole.truth is not None else UNREADABLE if whole.problem else NO_TRUTH
        return torch.tensor([state], dtype=torch.uint8)

    def _save_overlay(self, answer: Answer, whole: WholeSample, path: Path) -> None:
        drawn = self.over(answer, as_picture(whole.pixels))
        with atomic_path(path) as temporary:
            Image.fromarray(drawn).save(temporary, format="jpeg", quality=JPEG_QUALITY)

    def _draw(
        self, parts: Parts, dataset: ImageDataset, pixels: PixelFormat, number: int, out: Path
    ) -> None:
        """Draw images spread evenly over the result, with what is in them."""
        rows = np.linspace(0, number - 1, min(number, MOST_SHOWN)).round().astype(int)
        transform = self.transform(pixels, dataset.classes)
        tiles = []
        for row, name, answer in self.again(parts, set(rows.tolist())):
            whole = transform(sample_of_row(dataset, row, in_utf8(name), number), 0)
            drawn = self.over(answer, as_picture(whole.pixels))
            step = max(1, max(drawn.shape) // SHOWN_PX)
            lines = (Line(self.words(answer)), Line(in_utf8(name), FAINT, 11))
            tiles.append(Tile(np.ascontiguousarray(drawn[::step, ::step]), lines))
        with atomic_path(out) as temporary:
            draw_tiles(in_rows(tiles, COLUMNS)).save(temporary, format="png")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file, all of it or nothing."""
    with atomic_path(path) as temporary:
        write_csv(temporary, header, rows)


def _joined(values: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    keys = values[0] if values else ()
    return {key: torch.cat([each[key] for each in values]) for key in keys}
