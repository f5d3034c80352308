"""The probing job (L3)."""

import json
import time
from collections.abc import Iterator

import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from ssl_swin.data.batch import collate_labeled
from ssl_swin.data.loading import Placement, Reader
from ssl_swin.data.samples import LabeledSamples
from ssl_swin.data.transforms import CentreCropView
from ssl_swin.encoders import SwinEncoder
from ssl_swin.features import Features, extract_features
from ssl_swin.files import write_atomically
from ssl_swin.launch.setup import (
    Run,
    build_encoder,
    check_labelled,
    close_loggers,
    make_loggers,
    open_data,
    open_run,
    say,
    start_folder,
)
from ssl_swin.launch.summary import closing_lines
from ssl_swin.pixels import normalize
from ssl_swin.probes import accuracy, fit_linear_probe, knn_predict

Results = dict[str, float]  # metric name -> top-1 in percent


def main(cfg: DictConfig) -> None:
    """Probes frozen features of each stage, and says which is best on the validation split."""
    run = open_run(cfg)
    encoder = build_encoder(cfg).to(cfg.device)
    readers = open_data(cfg)
    classes = check_labelled(readers, ("val",))
    stages = list(cfg.stages or range(1, len(encoder.stage_dims) + 1))
    start_folder(run, readers)
    features = {
        split: extract_features(
            encoder,
            _batches(cfg, split, reader, encoder),
            stages=stages,
            pooling=cfg.pooling,
            device=cfg.device,
        )
        for split, reader in readers.items()
    }
    results = {
        stage: _probe(cfg, {split: by[stage] for split, by in features.items()}, len(classes))
        for stage in tqdm(stages, desc="probing stages")
    }
    _conclude(run, results)


def _batches(
    cfg: DictConfig, split: str, reader: Reader, encoder: SwinEncoder
) -> Iterator[tuple[Tensor, Tensor]]:
    samples = LabeledSamples(
        CentreCropView(encoder.img_size_px),
        channels=cfg.data.channels,
        dtype=cfg.data.dtype,
        seed=cfg.seed,
    )
    placement = Placement(cfg.batch_size, cfg.num_workers, rank=0, world_size=1)
    loader = reader.eval_loader(samples, collate_labeled, placement)
    for batch in tqdm(loader, desc=f"{split} features"):
        pixels = batch.pixels.to(cfg.device, non_blocking=True)
        yield normalize(pixels, cfg.data.mean, cfg.data.std), batch.labels.to(cfg.device)


def _probe(cfg: DictConfig, features: dict[str, Features], num_classes: int) -> Results:
    """Fits both probes on the training split; top-1 on the others."""
    train = features["train"]
    probe = fit_linear_probe(
        train, num_classes=num_classes, seed=cfg.seed, device=cfg.device, **cfg.linear
    )
    results = {}
    for split in features.keys() - {"train"}:
        queries, labels = features[split]
        with torch.inference_mode():
            scores = probe(queries.to(cfg.device)).cpu()
        results[f"{split}/linear_top1"] = accuracy(scores, labels)
        neighbours = knn_predict(train, queries, num_classes=num_classes, **cfg.knn)
        results[f"{split}/knn_top1"] = accuracy(neighbours, labels)
    return results


def _conclude(run: Run, results: dict[int, Results]) -> None:
    best = max(results, key=lambda stage: results[stage]["val/linear_top1"])
    write_atomically(
        run.folder.results,
        json.dumps({"best_stage": best, "top1_percent_by_stage": results}, indent=2) + "\n",
    )
    loggers = make_loggers(run)
    for stage, by_metric in results.items():
        for logger in loggers:
            named = {f"probe/{name}": value for name, value in by_metric.items()}
            logger.log_metrics(named, step=stage)
    for logger in loggers:
        logger.finalize("success")
    close_loggers(loggers)
    run.folder.finish(time.time() - run.started)
    names = sorted(results[best])
    say("\ntop-1 in percent" + "".join(f"{name:>18}" for name in names))
    for stage, by_metric in results.items():
        mark = "  <- best on val" if stage == best else ""
        say(f"  stage {stage:<8}" + "".join(f"{by_metric[name]:18.2f}" for name in names) + mark)
    say("\n".join(closing_lines(run, [("results", str(run.folder.results))])))
