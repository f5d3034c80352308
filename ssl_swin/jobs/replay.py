"""Repeating a step that a run left out: its model, weights and images, from its folder."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from ssl_swin.data.loading.exact import Cursor, ExactLoader
from ssl_swin.data.loading.paired import PairedLoader
from ssl_swin.data.loading.protocol import LoaderConfig, Split
from ssl_swin.divided_checkpoint import load_state
from ssl_swin.encoders.build import build_encoder
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.jobs.loop import training_data, training_module
from ssl_swin.launch.build import open_data, usable_device
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.launch.targets import located, make
from ssl_swin.objectives.base import Objective
from ssl_swin.optim.schedules import RunLength
from ssl_swin.runs.catalogue import Catalogue
from ssl_swin.runs.folder import RunFolder
from ssl_swin.runs.renamed import up_to_date
from ssl_swin.runs.skipped_steps import (
    FOLDER,
    SkippedBatch,
    SkippedStep,
    read_skipped_step,
    recorded_steps,
)
from ssl_swin.tasks.base import Task
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.health.replay import ReplayedStep, replay_step
from ssl_swin.training.optim import progress_at
from ssl_swin.weights.formats.run_checkpoints import FACTS


class Replay(NamedTuple):
    """A step, and what was found when it was repeated."""

    record: SkippedStep
    weights: Path
    found: ReplayedStep


def replay(run: Path, step: int | None, settings: Sequence[str], *, device: str) -> Replay:
    """Repeat a step of a run up to its gradients.

    Args:
        run: The run's folder.
        step: Which step; None takes the last that is recorded.
        settings: What differs on this machine, as ["data.root=elsewhere"].
        device: Where to compute.

    Raises:
        UserError: If there is no record of the step, or weights and data are not there any more.
    """
    steps = recorded_steps(run)
    if not steps:
        raise UserError(f"{run / FOLDER} holds no record of a step that was not finite")
    record = read_skipped_step(run, steps[-1] if step is None else step)
    weights = _weights(run, record)
    cfg = _configuration(run, settings)
    checkpoint = load_state(weights)
    objective, readers = _parts(cfg, checkpoint)
    data = training_data(cfg, readers, objective)
    module = training_module(cfg, objective)
    module.load_state_dict(checkpoint.get("current_model_state", checkpoint["state_dict"]))
    images = _Images(data, record)
    length = RunLength(
        steps_per_epoch=max(1, images.num_batches()),
        num_epochs=cfg.trainer.max_epochs,
        global_batch_size=record.batch_size * record.world_size * record.accumulated,
    )
    optimizer: Any = module.optimizer(objective, schedule=module.schedule, length=length)
    objective.before_step(progress_at(record.step, length))
    found = replay_step(
        module,
        record,
        images.batch,
        images.one_by_one,
        optimizer["optimizer"].param_groups,
        device=usable_device(device),
    )
    return Replay(record, weights, found)


class _Images:
    """Loads the batches of a record again."""

    def __init__(self, data: ImageDataModule, record: SkippedStep) -> None:
        self.data = data
        self.record = record

    def num_batches(self) -> int:
        """Return how many batches an epoch has."""
        return len(self._loader(0))

    def batch(self, recorded: SkippedBatch) -> Any:
        """Return a batch as the run had it."""
        loader = self._loader(recorded.rank)
        for source, place in _places(loader, recorded):
            source.go_to(place)
        batch = next(iter(loader))
        if list(batch.names) != list(recorded.names):
            raise UserError(
                f"the data has changed since: at its place lie {', '.join(batch.names[:3])} ..., "
                f"and the step had {', '.join(recorded.names[:3])} ..."
            )
        return batch

    def one_by_one(self, recorded: SkippedBatch) -> Iterator[Any]:
        """Yield the images of a batch alone, in the order of their names."""
        for source, place in _places(self._loader(recorded.rank), recorded):
            alone = source.of_size(1)
            for number in range(source.config.batch_size):
                offset = recorded.rank + number * self.record.world_size
                alone.go_to(Cursor(place.epoch, place.position + offset))
                yield next(iter(alone))

    def _loader(self, rank: int) -> ExactLoader | PairedLoader:
        size, world_size = self.record.batch_size, self.record.world_size
        loader = self.data.new_train_loader(LoaderConfig(size, 0, rank, world_size))
        if not isinstance(loader, ExactLoader | PairedLoader):
            raise UserError(
                "this run's data is read as a stream, in which no place can be entered: its "
                f"batches cannot be loaded again. Their names are in the record of step "
                f"{self.record.step}; data.reader=indexed can be replayed"
            )
        return loader


def _places(
    loader: ExactLoader | PairedLoader, recorded: SkippedBatch
) -> list[tuple[ExactLoader, Cursor]]:
    """Return the sources of a batch, each with its place in the data."""
    is_pair = isinstance(loader, PairedLoader)
    if (
        recorded.epoch is None
        or recorded.position is None
        or is_pair != (recorded.beside is not None)
    ):
        raise UserError(
            f"the record of rank {recorded.rank} lacks the batch's place in this data: it is of an "
            "earlier version, or semi and data.reader are others than in the run"
        )
    place = Cursor(recorded.epoch, recorded.position)
    if not isinstance(loader, PairedLoader):
        return [(loader, place)]
    assert recorded.beside is not None
    return [(loader.first, place), (loader.second, Cursor(*recorded.beside))]


def _weights(run: Path, record: SkippedStep) -> Path:
    """Return the file with the weights before a step: the one beside it, or a checkpoint."""
    if record.weights is not None and (run / FOLDER / record.weights).is_file():
        return run / FOLDER / record.weights
    for entry in Catalogue(run / "checkpoints").by_step():
        path = run / "checkpoints" / entry.name
        if entry.step == record.step and path.exists():
            return path
    raise UserError(
        f"the weights before step {record.step} are not kept any more, neither beside the record "
        "nor as a checkpoint; callbacks.skipped_steps.max_weights says of how many they are"
    )


def _configuration(run: Path, settings: Sequence[str]) -> DictConfig:
    register_resolvers()
    path = RunFolder(run).config
    if not path.is_file():
        raise UserError(f"{path} is missing: it says how the run was made")
    known = OmegaConf.load(path)
    assert isinstance(known, DictConfig)
    plain = OmegaConf.to_container(known, resolve=True)
    assert isinstance(plain, dict)
    today = up_to_date({str(key): value for key, value in plain.items()})
    merged = OmegaConf.merge(OmegaConf.create(today), OmegaConf.from_dotlist(list(settings)))
    assert isinstance(merged, DictConfig)
    return merged


def _parts(cfg: DictConfig, checkpoint: dict[str, Any]) -> tuple[Objective, dict[str, Split]]:
    """Build the objective or the task, and open the data, as the job does."""
    encoder = _encoder(cfg, checkpoint)
    if "objective" in cfg:
        objective: Objective = make(cfg.objective)(encoder)
        return objective, open_data(cfg, objective.members)
    task_class: type[Task] = located("task._target_", cfg.task._target_)
    job = import_module(f"ssl_swin.jobs.{task_class.job}")
    task, readers = job.task_and_data(cfg, encoder)
    return task, readers


def _encoder(cfg: DictConfig, checkpoint: dict[str, Any]) -> Encoder:
    facts = checkpoint.get(FACTS)
    if not isinstance(facts, dict):
        encoder: Encoder = make(cfg.model)
        return encoder
    return build_encoder(
        facts["architecture"],
        facts["model_args"],
        drop_path_rate=cfg.model.get("drop_path_rate", 0.0),
        grad_checkpointing=cfg.model.get("grad_checkpointing", False),
    )
