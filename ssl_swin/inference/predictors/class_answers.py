"""What classifiers answer: the most probable classes, how often they are right, an overview."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_swin.data.dataset import NO_LABEL, ImageDataset
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sources.table_rows import pyarrow
from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path
from ssl_swin.inference.calibration import calibration_error
from ssl_swin.inference.parts import Parts
from ssl_swin.inference.pictures import picture, sample_of_row
from ssl_swin.inference.prediction_files import (
    PREDICTION_ENDINGS,
    Prediction,
    write_predictions,
)
from ssl_swin.inference.predictors.base import Options, Predictor
from ssl_swin.inference.run import Computing, batches
from ssl_swin.inference.vector_files import bad_beside, in_utf8, labels_of, write_bad
from ssl_swin.inference.vectors import Compute, Precision, Rows
from ssl_swin.plurals import counted
from ssl_swin.reporting.drawing import FAINT, INK
from ssl_swin.reporting.tiles import RIGHT, WRONG, Line, Tile, draw_tiles, in_rows

MOST_SHOWN, COLUMNS = 24, 6
TOP = 5  # of the second accuracy
Logits = Callable[[Tensor], Tensor]


class ClassAnswers(Predictor):
    """A predictor of classes, whatever computes its logits.

    Attributes:
        temperature: Logits are divided by it for probabilities.
    """

    title = "a classifier"
    options = frozenset({"top", "scores", "figure", "crop_ratio", "batch_size"})
    temperature: float

    def __init__(self) -> None:
        """Set up what is told of the last file."""
        self._told: list[str] = []

    @abstractmethod
    def logits_function(self, device: torch.device, precision: Precision) -> Logits:
        """Return what maps pixels (B, C, H, W) to logits float32 (B, classes) on the CPU."""

    def facts(self, options: Options) -> dict[str, object]:
        """See `Predictor.facts`."""
        return {
            "temperature": self.temperature,
            "number of classes": self._num_kept(options),
            "normalisation": [[*self.mean], [*self.std]],
        }

    def check_out(self, out: Path) -> None:
        """See `Predictor.check_out`: the ending says which table is written."""
        if out.suffix.lower() not in PREDICTION_ENDINGS:
            raise UserError(
                f"{out}: the ending says how predictions are written, and it must be one of "
                f"{', '.join(PREDICTION_ENDINGS)}"
            )
        if out.suffix.lower() == ".parquet":
            pyarrow()

    def list_of_bad(self, out: Path) -> Path:
        """See `Predictor.list_of_bad`."""
        return bad_beside(out)

    def rows(
        self,
        dataset: ImageDataset,
        computing: Computing,
        options: Options,
        parts: Parts,
        first_batch: int,
    ) -> Iterator[Rows]:
        """See `Predictor.rows`."""
        compute = self.compute(options, computing.device, computing.precision)
        return batches(dataset, compute, computing, first_batch)

    def compute(self, options: Options, device: torch.device, precision: Precision) -> Compute:
        """Return what maps pixels (B, C, H, W) to top classes, their logits and probabilities."""
        logits_of = self.logits_function(device, precision)
        number = self._num_kept(options)

        def compute(pixels: Tensor) -> dict[str, Tensor]:
            logits = logits_of(pixels)
            top = logits.topk(number, dim=1)
            probabilities = (logits / self.temperature).softmax(dim=1).gather(1, top.indices)
            return {
                "classes": top.indices.int(),
                "logits": top.values,
                "probabilities": probabilities,
            }

        return compute

    def own_labels(self, labels: Tensor, classes: Sequence[str]) -> Tensor:
        """Return labels of a data set as this classifier's, by the names of the classes.

        Args:
            labels: int64 (N,), -1 for none.
            classes: The data set's.

        Returns:
            int64 (N,), -1 where there is no label or the classifier lacks the class.
        """
        own = {name: label for label, name in enumerate(self.classes)}
        table = torch.tensor([*(own.get(name, NO_LABEL) for name in classes), NO_LABEL])
        return table[labels]

    def write(
        self, parts: Parts, dataset: ImageDataset, pixels: PixelFormat, options: Options
    ) -> int:
        """See `Predictor.write`."""
        write_bad(parts)
        rows = self._predictions(parts, dataset.classes, options)
        labelled = bool(dataset.classes)
        top = min(options.top, len(self.classes))
        number = write_predictions(parts, rows, labelled=labelled, top=top)
        self._told = self._accuracies(parts, dataset.classes) if labelled else []
        if options.figure is not None:
            self._draw(parts, dataset, pixels, number, options.figure)
        return number

    def told(self) -> list[str]:
        """See `Predictor.told`."""
        return self._told

    def _num_kept(self, options: Options) -> int:
        return min(max(options.top, TOP), len(self.classes))

    def _predictions(
        self, parts: Parts, data_classes: Sequence[str], options: Options
    ) -> Iterator[Prediction]:
        of_scores = "logits" if options.scores == "logit" else "probabilities"
        for part in parts:
            if not part.names:
                continue
            columns = (
                map(in_utf8, part.names),
                labels_of(part, data_classes),
                part.values["classes"][:, : options.top].tolist(),
                part.values[of_scores][:, : options.top].tolist(),
            )
            for name, label, classes, scores in zip(*columns, strict=True):
                yield Prediction(name, label, [self.classes[each] for each in classes], scores)

    def _accuracies(self, parts: Parts, data_classes: Sequence[str]) -> list[str]:
        """Return one line on how often the classes are right, of images whose class is known."""
        judged = [self._judged(part, data_classes) for part in parts if part.names]
        confidences = torch.cat([each[0] for each in judged])
        hits = torch.cat([each[1] for each in judged])
        number = len(hits)
        if not number:
            return ["no class of the data is one of the classifier's, so nothing is judged"]
        first, few = (100 * hits[:, :k].any(dim=1).double().mean().item() for k in (1, TOP))
        of_five = f", top-{TOP} {few:.1f} %" if len(self.classes) > TOP else ""
        error = 100 * calibration_error(confidences, hits[:, 0])
        return [
            f"top-1 {first:.1f} %{of_five} of {counted(number, 'image')}; expected calibration "
            f"error {error:.1f} %"
        ]

    def _judged(self, part: Rows, data_classes: Sequence[str]) -> tuple[Tensor, Tensor]:
        labels = self.own_labels(part.labels, data_classes)
        known = labels != NO_LABEL
        hits = part.values["classes"][known, :TOP] == labels[known, None]
        return part.values["probabilities"][known, 0], hits

    def _draw(
        self, parts: Parts, dataset: ImageDataset, pixels: PixelFormat, number: int, out: Path
    ) -> None:
        """Draw images spread evenly over the file, with the first class and its probability."""
        shown = np.unique(np.linspace(0, number - 1, min(number, MOST_SHOWN)).round().astype(int))
        rows = self._predictions(parts, dataset.classes, Options(top=1))
        wanted = set(shown.tolist())
        tiles = [
            self._tile(dataset, pixels, row, number, prediction)
            for row, prediction in enumerate(rows)
            if row in wanted
        ]
        with atomic_path(out) as temporary:
            draw_tiles(in_rows(tiles, COLUMNS)).save(temporary, format="png")

    def _tile(
        self,
        dataset: ImageDataset,
        pixels: PixelFormat,
        row: int,
        num_rows: int,
        prediction: Prediction,
    ) -> Tile:
        name, label, (predicted,), (probability,) = prediction
        is_known = label in self.classes
        colour = INK if not is_known else RIGHT if predicted == label else WRONG
        lines = [Line(f"{100 * probability:.0f} % {predicted}", colour)]
        if is_known and predicted != label:
            lines.append(Line(f"is {label}"))
        lines.append(Line(name, FAINT, 11))
        sample = sample_of_row(dataset, row, name, num_rows)
        return Tile(picture(sample, pixels), tuple(lines))
