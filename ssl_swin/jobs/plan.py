"""`plan=true`: what a run will cost, measured on a few of its steps; nothing is written."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import Trainer

from ssl_swin.data.loading.protocol import Split
from ssl_swin.jobs.plan_disk import Pictures, disk_use, pictures_of
from ssl_swin.launch.first_look import length_of, look_first
from ssl_swin.launch.printing import is_first_process, say
from ssl_swin.launch.run import Run
from ssl_swin.launch.space import free_bytes, in_bytes
from ssl_swin.masking import num_masked_patches
from ssl_swin.optim.schedules import RunLength
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.live_memory import largest_batch
from ssl_swin.training.measuring import StepCost, measure_steps
from ssl_swin.training.module import TrainingModule

Rows = list[tuple[str, str]]
MOST_CLASSES = 5  # that are listed
WIDTH, LABEL = 80, 17  # columns
GIBIBYTE = 2**30
CARDS_GIB = (16, 24, 40, 80)
USABLE = 0.9  # the rest is for the driver, kernels and what the allocator rounds up


def tell_plan(run: Run, trainer: Trainer, module: TrainingModule, data: ImageDataModule) -> None:
    """Measure a few real steps on this device, and print what the whole run takes.

    Raises:
        UserError: If the run would be refused.
    """
    length = length_of(trainer, data)
    look_first(run, trainer, module, data)
    cost = _measured(run, trainer, module, data)
    pictures = pictures_of(trainer, module, data, _num_steps(trainer, length))
    if not is_first_process():
        return
    rows = [
        *_data_rows(data.readers),
        *_recipe_rows(run, trainer, module, data, length),
        *_cost_rows(cost, trainer, data),
        *_whole_rows(run, trainer, module, length, cost, pictures),
    ]
    say("\n".join([f"\nplan of {run.folder.path}", *(_row(*row) for row in rows)]))
    say("nothing was written: the same command without plan=true starts the run")


def _row(what: str, text: str) -> str:
    """Lay a row out in 80 columns; what does not fit goes on below."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"  {what:<{LABEL - 3}} ",
        subsequent_indent=" " * LABEL,
        break_long_words=False,
    )


def _measured(
    run: Run, trainer: Trainer, module: TrainingModule, data: ImageDataModule
) -> StepCost:
    device = trainer.strategy.root_device
    module.to(device).train()
    made: Any = module.optimizer_for(trainer, data)
    batches = _endless(data)
    return measure_steps(
        module.model,
        made["optimizer"],
        lambda batch: module.model(batch, module.normalized).loss,
        lambda: trainer.strategy.batch_to_device(next(batches), device),
        device=device,
        precision=trainer.precision_plugin.forward_context,
        is_counted=not run.cfg.compile,
    )


def _endless(data: ImageDataModule) -> Iterator[Any]:
    while True:
        yield from data.train_dataloader()


def _data_rows(readers: Mapping[str, Split]) -> Rows:
    rows = [(split, reader.summary()) for split, reader in readers.items()]
    classes = readers["train"].classes
    if classes:
        more = ", ..." if len(classes) > MOST_CLASSES else ""
        rows.append(("classes", f"{len(classes)}: {', '.join(classes[:MOST_CLASSES])}{more}"))
    return rows


def _recipe_rows(
    run: Run, trainer: Trainer, module: TrainingModule, data: ImageDataModule, length: RunLength
) -> Rows:
    made: Any = module.optimizer_for(trainer, data)
    peak = max(made["lr_scheduler"]["scheduler"].base_lrs)
    epochs = run.cfg.schedule.get("warmup_epochs", 0)
    warmup = run.cfg.schedule.get("warmup_steps", round(epochs * length.steps_per_epoch))
    accumulated = trainer.accumulate_grad_batches
    rows = [
        ("objective", module.model.describe()),
        (
            "batch",
            f"{length.global_batch_size:,} images a step: {data.batch_size} per device, "
            f"devices: {trainer.world_size}, accumulated batches: {accumulated}",
        ),
        ("learning rate", f"{peak:.3g} at its peak, for this batch; steps of warm-up: {warmup:,}"),
        (
            "length",
            f"{_num_steps(trainer, length):,} steps, {length.steps_per_epoch:,} an epoch, "
            f"{length.num_epochs:,} epochs",
        ),
    ]
    ratio = _mask_ratio(module.model)
    if ratio is not None:
        rows.insert(1, ("mask ratio", ratio))
    return rows


def _mask_ratio(model: Any) -> str | None:
    """Return the ratio of an objective that masks, in whole mask patches."""
    if not hasattr(model, "mask_grid") or not hasattr(model, "mask_ratio"):
        return None
    number = model.mask_grid[0] * model.mask_grid[1]
    return f"{num_masked_patches(number, model.mask_ratio) / number:.4f}, asked {model.mask_ratio}"


def _cost_rows(cost: StepCost, trainer: Trainer, data: ImageDataModule) -> Rows:
    device = trainer.strategy.root_device
    memory = (
        f"{in_bytes(cost.fixed_bytes)} and {in_bytes(cost.kept_bytes_per_image)} an image kept "
        "for the backward pass"
    )
    if cost.peak_bytes is not None:
        counted = "" if device.type == "cuda" else ", counted by tensor"
        memory += f"; peak {in_bytes(cost.peak_bytes)} at {cost.batch_size} images{counted}"
    flops = "not counted of compiled blocks"
    if cost.flops_per_image is not None:
        flops = f"{cost.flops_per_image / 1e9:.3g} G an image, forward and backward"
    return [
        ("FLOPs", flops),
        ("memory", memory),
        *([] if cost.peak_bytes is None else [("fits", _fitting(cost))]),
        (
            "speed",
            f"{data.batch_size / cost.step_s:,.1f} images/s on {device}, {cost.data_wait_ratio:.0%}"
            f" waits for data ({cost.num_steps} steps)",
        ),
    ]


def _fitting(cost: StepCost) -> str:
    """Say how many images fit into graphics cards of the usual sizes."""
    assert cost.peak_bytes is not None
    numbers = [
        largest_batch(
            gib * GIBIBYTE * USABLE,
            fixed_bytes=cost.fixed_bytes + cost.cast_bytes,
            peak_bytes=cost.peak_bytes,
            batch_size=cost.batch_size,
        )
        for gib in CARDS_GIB
    ]
    told = ", ".join(
        f"{number:,} in {gib} GiB" for gib, number in zip(CARDS_GIB, numbers, strict=True)
    )
    return f"images in a step, by memory: {told}; a tenth is left free"


def _whole_rows(
    run: Run,
    trainer: Trainer,
    module: TrainingModule,
    length: RunLength,
    cost: StepCost,
    pictures: list[Pictures],
) -> Rows:
    num_steps = _num_steps(trainer, length)
    seconds = num_steps * trainer.accumulate_grad_batches * cost.step_s
    weights = sum(p.numel() for p in module.model.parameters())
    return [
        ("parameters", f"{weights / 1e6:,.1f} M"),
        ("time", f"{_duration(seconds)} of training, besides validation, probes and pictures"),
        ("disk", str(disk_use(run, trainer, module, length, seconds, pictures))),
        ("", f"{in_bytes(free_bytes(run.folder.path))} are free"),
    ]


def _num_steps(trainer: Trainer, length: RunLength) -> int:
    whole = length.num_epochs * length.steps_per_epoch
    return whole if trainer.max_steps < 0 else min(whole, trainer.max_steps)


def _duration(seconds: float) -> str:
    for unit, length_s in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.0f} s"
