"""Configurations of version 0.1.0, in the terms of today."""

from copy import deepcopy
from typing import Any

import pytest

from ssl_swin.runs.renamed import up_to_date

SETTINGS = {"drop_path_rate": 0.0, "grad_checkpointing": False}
SWIN = {"_target_": "ssl_swin.swin", **SETTINGS}
BACKBONE = {"img_size_px": None, "window_size": None, **SETTINGS}
CROP = {"eval_crop_ratio": 0.875}
ALL_LABELS = {"labels": {"ratio": None, "per_class": None, "seed": 0}}


@pytest.mark.parametrize(
    ("old", "today"),
    [
        (  # fine-tuning
            {"model": {"_target_": None}, "drop_path_rate": 0.2, "grad_checkpointing": True},
            {"model": BACKBONE | {"drop_path_rate": 0.2, "grad_checkpointing": True}} | CROP,
        ),
        (  # of random weights: what stood in the model had no effect
            {"model": {**SWIN, "_target_": "ssl_swin.encoders.swin"}, "drop_path_rate": 0.1},
            {"model": SWIN | {"drop_path_rate": 0.1}} | CROP,
        ),
        (
            {"model": {"_target_": None}, "knn": {"ks": [5]}},
            {"model": BACKBONE, "knn": {"ks": [5]}} | CROP | ALL_LABELS,
        ),
        ({"model": {"_target_": "mine.model"}}, {"model": {"_target_": "mine.model"}} | CROP),
        (  # of a dense task, which looks at whole images
            {"model": {"_target_": "mine.model"}, "classes": None},
            {"model": {"_target_": "mine.model"}, "classes": None},
        ),
        (
            {"model": {"_target_": "ssl_swin.beit.beit", "depth": 3}},
            {
                "model": {
                    "_target_": "ssl_swin.beit",
                    "depth": 3,
                    "fixed_positions": False,
                    "layer_scale": 0.1,
                    "initial_weights": "simmim",
                }
            }
            | CROP,
        ),
        (
            {"objective": {"_target_": "ssl_swin.SparseSimMIM", "decoder_depth": 2}},
            {
                "objective": {
                    "_target_": "ssl_swin.SparseSimMIM",
                    "decoder_depth": 2,
                    "decoder_fixed_positions": False,
                }
            },
        ),
        (
            {
                "model": {
                    "_target_": "ssl_swin.beit",
                    "fixed_positions": True,
                    "layer_scale": 1,
                    "initial_weights": "mae",
                }
            },
            {
                "model": {
                    "_target_": "ssl_swin.beit",
                    "fixed_positions": True,
                    "layer_scale": 1,
                    "initial_weights": "mae",
                }
            }
            | CROP,
        ),
        (
            {"model": BACKBONE | {"drop_path_rate": 0.3}},
            {"model": BACKBONE | {"drop_path_rate": 0.3}} | CROP,
        ),
        (
            {"model": BACKBONE, "eval_crop_ratio": 1.0, "labels": {"seed": 3}, "knn": {}},
            {"model": BACKBONE, "eval_crop_ratio": 1.0, "labels": {"seed": 3}, "knn": {}},
        ),
        (  # at another size than the backbone's
            {"model": {"_target_": None}, "img_size_px": 224, "window_size": None},
            {"model": BACKBONE | {"img_size_px": 224}} | CROP,
        ),
        (  # at the model's own
            {"model": {**SWIN, "img_size_px": 192}, "img_size_px": None, "window_size": None},
            {"model": {**SWIN, "img_size_px": 192}} | CROP,
        ),
        ({"seed": 1}, {"seed": 1}),
    ],
)
def test_up_to_date__has_each_setting_where_it_is_today(
    old: dict[str, Any], today: dict[str, Any]
) -> None:
    before = deepcopy(old)
    assert up_to_date(old) == today
    assert up_to_date(today) == today
    assert old == before
