"""The probing job."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig
from torch import Tensor

from ssl_swin.display.work import followed
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path, check_can_be_made, write_atomically
from ssl_swin.jobs.labels import train_on_few_labels
from ssl_swin.jobs.probe_features import SplitFeatures
from ssl_swin.jobs.settings import LinearProbeSettings
from ssl_swin.jobs.summary import closing_lines
from ssl_swin.launch.build import build_encoder, check_labelled, open_data, usable_device
from ssl_swin.launch.fitting import close_loggers, make_loggers
from ssl_swin.launch.printing import say
from ssl_swin.launch.run import Run, open_run, start_folder
from ssl_swin.probing.features import Tap
from ssl_swin.probing.fitting import check_recipe
from ssl_swin.probing.grids import knn_grid, linear_grid
from ssl_swin.probing.heads import LinearHeads, head_predictions
from ssl_swin.probing.knn import knn_predict
from ssl_swin.probing.score_grid import ScoreGrid
from ssl_swin.probing.scoring import standard_error
from ssl_swin.reporting.confusion import confusion_matrix, save_confusion
from ssl_swin.reporting.score_grid_figure import draw_score_grids
from ssl_swin.training.callbacks.keep_metrics import catch_up
from ssl_swin.training.progress import StepAt

RECIPE = ("optimizer", "weight_decay", "epochs", "warmup_epochs")


class Top1(NamedTuple):
    """What a chosen classifier reaches on a split, in percent."""

    percent: float
    standard_error: float


Reached = dict[str, dict[str, Top1]]  # by method and split


def main(cfg: DictConfig) -> None:
    """Probes frozen features of each stage; what is best on val is then tried on the test split."""
    run = open_run(cfg, LinearProbeSettings)
    check_recipe(**{key: cfg.linear[key] for key in RECIPE})
    device = usable_device(cfg.device)
    encoder = build_encoder(cfg).to(device)
    readers = open_data(cfg)
    classes = check_labelled(readers, ("val",))
    train_on_few_labels(cfg, readers)
    stages = _chosen_stages(cfg, encoder)
    taps = [Tap(stage, pooling) for stage in stages for pooling in cfg.poolings]
    check_can_be_made(run.folder.path, "run_dir")
    check_can_be_made(Path(cfg.features.folder), "features.folder")
    start_folder(run, readers)
    features = SplitFeatures(run, encoder, readers)
    linear, head, knn = _search(cfg, features, taps, len(classes))

    top1: Reached = {"linear": {}, "knn": {}}
    for split in [split for split in readers if split != "train"]:
        labels, predicted = _predict(cfg, features, split, linear, head, knn, len(classes))
        for method, answers in predicted.items():
            percent = 100 * (answers == labels).double().mean().item()
            top1[method][split] = Top1(percent, standard_error(percent, len(labels)))
        matrix = confusion_matrix(predicted["linear"], labels, len(classes))
        save_confusion(run.folder.path / f"confusion_{split}", matrix, classes)
    _conclude(run, [linear, knn], top1)


def _chosen_stages(cfg: DictConfig, encoder: Encoder) -> list[int]:
    """Return the stages to probe, counted from 1.

    Raises:
        UserError: If the encoder does not have one of them.
    """
    existing = range(1, len(encoder.stage_dims) + 1)
    stages = list(cfg.stages or existing)
    if not set(stages) <= set(existing):
        raise UserError(f"stages must be of 1 to {existing[-1]}, got {stages}")
    return stages


def _search(
    cfg: DictConfig, features: SplitFeatures, taps: list[Tap], num_classes: int
) -> tuple[ScoreGrid, LinearHeads, ScoreGrid]:
    """Learns from train and judges on val."""
    train, val = features.of("train", taps), features.of("val", taps)
    linear, head = linear_grid(
        train,
        val,
        num_classes=num_classes,
        device=cfg.device,
        seed=cfg.seed,
        tolerance_se=cfg.tolerance_se,
        progress=lambda taps: followed(taps, "linear heads", None, "features"),
        **cfg.linear,
    )
    knn = knn_grid(
        train,
        val,
        num_classes=num_classes,
        device=cfg.device,
        tolerance_se=cfg.tolerance_se,
        **cfg.knn,
    )
    return linear, head, knn


def _predict(
    cfg: DictConfig,
    features: SplitFeatures,
    split: str,
    linear: ScoreGrid,
    head: LinearHeads,
    knn: ScoreGrid,
    num_classes: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the labels of a split, and by method the classes that the chosen one predicts."""
    queries = features.of(split, sorted({linear.chosen.tap, knn.chosen.tap}))
    bank = features.of("train", [knn.chosen.tap])[knn.chosen.tap]
    neighbours = knn_predict(
        bank,
        queries[knn.chosen.tap].features.to(cfg.device),
        k=int(knn.chosen.setting),
        temperature=cfg.knn.temperature,
        num_classes=num_classes,
    )
    chosen = queries[linear.chosen.tap]
    classes = head_predictions(head, chosen.features, cfg.device)
    return chosen.labels, {"linear": classes, "knn": neighbours.argmax(dim=1).cpu()}


def _conclude(run: Run, grids: list[ScoreGrid], top1: Reached) -> None:
    results = {grid.method: _as_data(grid, top1[grid.method]) for grid in grids}
    write_atomically(run.folder.results, json.dumps(results, indent=2) + "\n")
    picture = run.folder.path / "grid.png"
    with atomic_path(picture) as temporary:
        draw_score_grids(grids).save(temporary, "png")
    _log(run, grids, top1)
    run.folder.finish(time.time() - run.started)
    for grid in grids:
        say("\n" + "\n".join(grid.lines()))
        say("  chosen on val: " + _chosen(grid, top1[grid.method]))
    where = [("results", str(run.folder.results)), ("grid", str(picture))]
    where += [
        ("confusion", str(run.folder.path / f"confusion_{split}")) for split in top1["linear"]
    ]
    say("\n".join(closing_lines(run, where)))


def _as_data(grid: ScoreGrid, top1: Mapping[str, Top1]) -> dict[str, Any]:
    tap, setting, _ = grid.chosen
    return {
        "chosen_on_val": {"stage": tap.stage, "pooling": tap.pooling, grid.setting: setting},
        "top1_percent": {split: each.percent for split, each in top1.items()},
        "standard_error_percent": {split: each.standard_error for split, each in top1.items()},
        "grid": grid.as_data(),
    }


def _chosen(grid: ScoreGrid, top1: Mapping[str, Top1]) -> str:
    tap, setting, _ = grid.chosen
    reached = ", ".join(
        f"{split} {percent:.2f} +- {error:.2f}" for split, (percent, error) in top1.items()
    )
    return f"stage {tap.stage}, {tap.pooling} pooling, {grid.setting} {setting:g}: {reached}"


def _log(run: Run, grids: list[ScoreGrid], top1: Reached) -> None:
    """Logs over the stages: the best of each pooling on val, and what was chosen on each split."""
    rows: dict[int, dict[str, float]] = {}
    for grid in grids:
        name = f"{grid.method}_top1"
        for tap in grid.top1_percent:
            best = grid.best_of(tap).top1_percent
            rows.setdefault(tap.stage, {})[f"probe/val/{name}/{tap.pooling}"] = best
        reached = top1[grid.method].items()
        rows[grid.chosen.tap.stage] |= {
            f"probe/{split}/{name}": each.percent for split, each in reached
        }
    progress = StepAt()
    loggers = make_loggers(run, progress)
    catch_up(loggers, step=0)
    for stage, row in sorted(rows.items()):
        progress.step = stage
        for logger in loggers:
            logger.log_metrics(row, step=stage)
    for logger in loggers:
        logger.finalize("success")
    close_loggers(loggers)
