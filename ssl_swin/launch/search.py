"""A search for hyper-parameters: Optuna says what the jobs of a sweep are, one after another.

Imports nothing heavy, so that `--help` answers at once.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ssl_swin.arguments import Positive, checked
from ssl_swin.errors import UserError
from ssl_swin.launch.search_space import distribution_of, setting, split_overrides
from ssl_swin.launch.targets import make
from ssl_swin.runs.metrics import is_lower_better
from ssl_swin.runs.sweep_table import STOPPED, job_status

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

Direction = Literal["minimize", "maximize"]
SPACE, DIRECTION, SQLITE = "space", "direction", "sqlite:///"
SAMPLERS = "optuna.samplers."
Trial = tuple[int, tuple[str, ...]]  # its number in the study, and its overrides


class Search(Sweeper):
    """Runs a sweep whose jobs are the trials of a study."""

    hydra_context: HydraContext | None = None
    config: DictConfig | None = None
    launcher: Launcher | None = None

    @checked
    def __init__(
        self,
        *,
        params: Mapping[str, Any],
        n_trials: Positive,
        n_jobs: Positive = 1,
        direction: Direction | None = None,
        storage: str | None = None,
        sampler: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the settings; conf/hydra/sweeper/optuna.yaml says what each is."""
        self.params, self.n_trials, self.n_jobs = params, n_trials, n_jobs
        self.direction, self.storage, self.sampler = direction, storage, sampler

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what runs the jobs."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until the study has as many as it should.

        Args:
            arguments: Overrides of the command line.

        Raises:
            UserError: If Optuna is missing, nothing is searched, or the study is another one.
        """
        _check_package()
        assert self.config is not None
        fixed, searched = split_overrides(arguments, self.params)
        if not searched:
            raise UserError("nothing is searched: give hydra.sweeper.params, or search=NAME")
        metric = self.config.get("optimized_metric")
        if metric is None:
            raise UserError(
                "a search needs optimized_metric, and this job has none: search a pretraining or "
                "a fine-tuning"
            )
        _check_is_measured(str(metric), self.config.get("trainer") or {})
        better: Direction = "minimize" if is_lower_better(str(metric)) else "maximize"
        direction = self.direction or better
        space = {key: distribution_of(each) for key, each in searched.items()}
        study = _open_study(self.storage, direction, space)
        first_job = 0
        while (left := self.n_trials - _num_ended(study)) > 0:
            trials = _unfinished(study, space)[: min(left, self.n_jobs)]
            while len(trials) < min(left, self.n_jobs):
                trials.append(self._ask(study, space))
            jobs = self._run([(n, (*fixed, *settings)) for n, settings in trials], first_job)
            first_job += len(trials)
            for (number, settings), job in zip(trials, jobs, strict=True):
                if not _is_stopped(job):
                    _tell(study, number, value := _value(job))
                    result = "no result" if value is None else f"{metric} {value:.5g}"
                    text = f"trial {number + 1} of {self.n_trials}: {result}"
                    print(f"{text} with {', '.join(settings)}", flush=True)
            if any(map(_is_stopped, jobs)):
                return  # the same command continues those, and then goes on

    def _ask(self, study: "Study", space: Mapping[str, "BaseDistribution"]) -> Trial:
        number = len(study.get_trials(deepcopy=False))
        if self.sampler is not None:
            study.sampler = _sampler(self.sampler, number)
        trial = study.ask(dict(space))
        return trial.number, _overrides(trial.params, space)

    def _run(self, trials: Sequence[Trial], first_job: int) -> list[JobReturn]:
        """Return what came of trials; equal ones run once."""
        assert self.launcher is not None
        jobs = list(dict.fromkeys(overrides for _, overrides in trials))
        batch = [list(overrides) for overrides in jobs]
        self.validate_batch_is_legal(batch)
        returns = self.launcher.launch(batch, initial_job_idx=first_job)
        ended = dict(zip(jobs, returns, strict=True))
        return [ended[overrides] for _, overrides in trials]


def register_sweeper() -> None:
    """Make `hydra/sweeper=optuna` known to Hydra, also from a clone; safe to call again."""
    try:
        from hydra_plugins.ssl_swin_search import OptunaSweeper
    except ImportError:  # the package was copied or installed without it; only a search needs it
        return
    Plugins.instance().register(OptunaSweeper)


def _check_package() -> None:
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "hydra/sweeper=optuna needs Optuna, which is not installed: "
            "pip install 'ssl_swin[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _check_is_measured(metric: str, trainer: Mapping[str, Any]) -> None:
    """Refuse a search whose trials would all end before their first validation."""
    every, epochs = trainer.get("check_val_every_n_epoch"), trainer.get("max_epochs")
    if metric.startswith("val/") and every and epochs and every > epochs:
        raise UserError(
            f"no trial would measure {metric}: trainer.check_val_every_n_epoch={every} is more "
            f"than trainer.max_epochs={epochs}; give 1"
        )


def _sampler(settings: Mapping[str, Any], number: int) -> Any:
    """Return what draws a trial: by its seed and number, so that a continued search is the same."""
    target = settings.get("_target_")
    if not str(target).startswith(SAMPLERS):
        raise UserError(
            f"hydra.sweeper.sampler._target_ must be a sampler of Optuna, such as "
            f"{SAMPLERS}TPESampler, got {target!r}"
        )
    seed = settings.get("seed")
    if isinstance(seed, int):
        digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
        settings = {**settings, "seed": int.from_bytes(digest[:4], "big")}
    return make(settings)


def _open_study(
    storage: str | None, direction: Direction, space: Mapping[str, "BaseDistribution"]
) -> "Study":
    """Return the study of this search, a new one or the one that an earlier start has begun."""
    import optuna
    from optuna.distributions import distribution_to_json

    if storage and storage.startswith(SQLITE):
        Path(storage.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    try:
        study = optuna.create_study(
            storage=storage, study_name="search", direction=direction, load_if_exists=True
        )
    except Exception as error:
        problem = str(error).splitlines()[0]
        raise UserError(f"hydra.sweeper.storage={storage} cannot be used: {problem}") from error
    asked = {
        SPACE: {key: json.loads(distribution_to_json(each)) for key, each in space.items()},
        DIRECTION: direction,
    }
    for name, value in asked.items():
        if study.user_attrs.get(name, value) != value:
            raise UserError(
                f"{storage} holds a search with another {name}: search under another name=, or "
                "give that one again"
            )
        study.set_user_attr(name, value)
    return study


def _num_ended(study: "Study") -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def _unfinished(study: "Study", space: Mapping[str, "BaseDistribution"]) -> list[Trial]:
    """Return trials that a stop has cut off, whose runs go on from their checkpoints."""
    from optuna.trial import TrialState

    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    whole = [trial for trial in running if trial.params.keys() == space.keys()]
    return [(trial.number, _overrides(trial.params, space)) for trial in whole]


def _overrides(
    params: Mapping[str, Any], space: Mapping[str, "BaseDistribution"]
) -> tuple[str, ...]:
    return tuple(setting(key, params[key], each) for key, each in space.items())


def _is_stopped(job: JobReturn) -> bool:
    """Return whether a job ended before its end, as by trainer.max_time, and can go on."""
    if job.hydra_cfg is None:
        return False
    return job_status(Path(str(job.hydra_cfg.hydra.runtime.output_dir))) == STOPPED


def _value(job: JobReturn) -> float | None:
    """Return the result of a job; None of one that failed."""
    try:
        value = float(job.return_value)
    except Exception:  # what the job raised, or no number
        return None
    return value if math.isfinite(value) else None


def _tell(study: "Study", number: int, value: float | None) -> None:
    from optuna.trial import TrialState

    if value is None:
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, value)
