"""What a dashboard of Weights & Biases shows: a section for each group of metrics, and pictures."""

import re
from collections.abc import Mapping
from typing import Any

from ssl_swin.runs.metrics import MARK, METRICS, PICTURES, Metric

NAME = "ssl_swin"  # of the workspace, beside W&B's own
X_AXIS = "trainer/global_step"  # optimiser steps, as Lightning's logger calls them
EVALUATED = ("val", "test")  # groups whose names may end in a mark


def specification(entity: str, project: str) -> dict[str, Any]:
    """Return a workspace as JSON can hold it.

    A line panel has either `metric`, the name of one metric, or `pattern`, a regular expression
    that the names of several match; a picture panel has `pictures`, the key of one series.

    Args:
        entity: User or team that the project belongs to.
        project: Its name.
    """
    groups = dict.fromkeys(metric.group for metric in METRICS)
    sections = [
        {"name": group, "panels": [_lines(each) for each in METRICS if each.group == group]}
        for group in groups
    ]
    pictures = [{"title": meaning, "pictures": key} for key, meaning in PICTURES.items()]
    return {
        "entity": entity,
        "project": project,
        "name": NAME,
        "x_axis": X_AXIS,
        "sections": [*sections, {"name": "pictures", "panels": pictures}],
    }


def _lines(metric: Metric) -> Mapping[str, str]:
    shown = {"title": metric.name, "unit": metric.unit}
    if "*" not in metric.name and metric.group not in EVALUATED:
        return {**shown, "metric": metric.name}
    plain = "[^/]+".join(map(re.escape, metric.name.split("*")))
    return {**shown, "pattern": f"^{plain}({MARK.pattern.removesuffix('$')})?$"}
