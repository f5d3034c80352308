"""Which classes a classifier takes for which: the matrix, and its tables on disk."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path, write_atomically
from ssl_swin.reporting.confusion_figure import draw_confusion


def confusion_matrix(
    scores_or_predictions: Tensor, labels: Tensor, num_classes: int
) -> NDArray[np.int64]:
    """Counts how often each class was predicted for each true class.

    Args:
        scores_or_predictions: Class scores (N, num_classes), or predicted classes (N,).
        labels: True classes (N,).
        num_classes: Classes lie in [0, num_classes).

    Returns:
        int64 (num_classes, num_classes): true classes down, predicted ones across.

    Raises:
        UserError: If there are not as many labels as predictions, or a class is out of range.
    """
    scored = scores_or_predictions.ndim == 2
    predicted = scores_or_predictions.argmax(dim=1) if scored else scores_or_predictions
    if predicted.shape != labels.shape:
        raise UserError(f"{len(predicted)} predictions do not go with {len(labels)} labels")
    pairs = torch.stack([labels.long().cpu(), predicted.long().cpu()])
    wrong = pairs[(pairs < 0) | (pairs >= num_classes)]
    if len(wrong):
        raise UserError(f"class {wrong[0].item()} is not in [0, {num_classes - 1}]")
    counts = multiclass_confusion_matrix(pairs[1], pairs[0], num_classes, validate_args=False)
    matrix: NDArray[np.int64] = counts.numpy()
    return matrix


def class_accuracy(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the percentage of right predictions per class, NaN for a class without images."""
    images = matrix.sum(axis=1)
    accuracy = np.full(len(matrix), np.nan)
    np.divide(100 * matrix.diagonal(), images, out=accuracy, where=images > 0)
    return accuracy


def save_confusion(
    folder: str | Path, matrix: NDArray[np.int64], classes: Sequence[str]
) -> tuple[Path, Path, Path]:
    """Writes `confusion.png`, `confusion.csv` and `per_class.csv`.

    The first table has a line per pair of classes that occurs, the most frequent first within each
    true class; the second a line per class.

    Args:
        folder: Is made if need be.
        matrix: Result of `confusion_matrix`.
        classes: Names, one per row.

    Returns:
        The three paths, in this order.

    Raises:
        UserError: If the matrix is not one of these classes, or the folder cannot be written to.
    """
    if matrix.shape != (len(classes), len(classes)):
        raise UserError(f"a matrix of {matrix.shape} does not go with {len(classes)} classes")
    folder = Path(folder)
    picture, pairs, per_class = (
        folder / name for name in ("confusion.png", "confusion.csv", "per_class.csv")
    )
    with atomic_path(picture) as temporary:
        draw_confusion(matrix, classes, class_accuracy(matrix)).save(temporary, "png")
    write_atomically(pairs, table_of(("true", "predicted", "images"), _pair_rows(matrix, classes)))
    header = ("class", "images", "right", "accuracy_percent", "most_often_taken_for", "times")
    write_atomically(per_class, table_of(header, _class_rows(matrix, classes)))
    return picture, pairs, per_class


def _pair_rows(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[tuple[object, ...]]:
    true, predicted = np.nonzero(matrix)
    counts = matrix[true, predicted]
    order = np.lexsort((predicted, -counts, true))
    return [(classes[true[i]], classes[predicted[i]], int(counts[i])) for i in order]


def _class_rows(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[tuple[object, ...]]:
    mistakes = matrix - np.diag(matrix.diagonal())
    rows: list[tuple[object, ...]] = []
    for index, accuracy in enumerate(class_accuracy(matrix)):
        worst = int(mistakes[index].argmax())
        times = int(mistakes[index, worst])
        percent = "" if np.isnan(accuracy) else f"{accuracy:.2f}"
        other = classes[worst] if times else ""
        images, right = int(matrix[index].sum()), int(matrix[index, index])
        rows.append((classes[index], images, right, percent, other, times))
    return rows


def table_of(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as CSV.

    Args:
        header: Names of the columns.
        rows: Their values.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
