"""The course of a run's probes: remembered, also by a run that is continued, and drawn."""

import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from ssl_swin.files import atomic_path
from ssl_swin.reporting.probe_figure import ProbePanel, draw_probes
from ssl_swin.runs.metrics_file import MetricsFile

TITLES = {  # of what is drawn, in this order
    "probe/knn_top1": "nearest neighbours: top-1, %",
    "probe/linear_top1": "linear classifier: top-1, %",
    "rep/rankme": "rank of the features (RankMe)",
    "rep/cka_to_init": "likeness to the first network (CKA)",
}
NAME = re.compile(r"(.+)/stage(\d+)")


class ProbeCurves:
    """What the probes found so far, by measure, stage and step.

    Attributes:
        last_step: Step of the newest values; -1 without any.
    """

    def __init__(self) -> None:
        self.last_step = -1
        self._values: dict[str, dict[int, dict[int, float]]] = {title: {} for title in TITLES}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take values of a step.

        Args:
            step: Number of the step.
            values: By metric; others than the probes' are passed over.
        """
        for name, value in values.items():
            match = NAME.fullmatch(name)
            if match and match[1] in TITLES:
                self._values[match[1]].setdefault(int(match[2]), {})[step] = value
                self.last_step = max(self.last_step, step)

    def take_up(self, metrics: MetricsFile, up_to: int) -> None:
        """Take what a run that is continued has logged.

        Args:
            metrics: Its metrics.csv.
            up_to: Step that it is continued from.
        """
        for step, row in metrics.rows(after=-1, up_to=up_to):
            self.add(step, row)

    def ranks(self) -> tuple[float, float] | None:
        """Return the first and the newest rank of the last stage's features, if known."""
        by_stage = self._values["rep/rankme"]
        if not by_stage or 0 not in (values := by_stage[max(by_stage)]):
            return None
        return values[0], values[max(values)]

    def write(self, path: Path) -> Image.Image:
        """Draw the curves into a file, and return the picture.

        Args:
            path: A .png file.
        """
        found = [
            ProbePanel(title, dict(sorted(self._values[name].items())))
            for name, title in TITLES.items()
            if self._values[name]
        ]
        picture = draw_probes(found)
        with atomic_path(path) as temporary:
            picture.save(temporary, format="png")
        return picture
