"""Training loops that go on exactly where a checkpoint was written.

Lightning skips what was still to come of the step at whose end a checkpoint was written: its
validation, the end of its epoch, and the count of that epoch, so that a run that is continued twice
trains an epoch too many. Here that step is finished first.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

EPOCHS, BATCHES = "epoch_progress", "epoch_loop.batch_progress"
VALIDATION = "epoch_loop.val_loop.batch_progress"


def settled(loops: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a fit loop with counters that say what had happened.

    Between two epochs all counters of epochs are equal. Inside an epoch it is begun and not
    processed, and its last batch is completed.

    Args:
        loops: State of a fit loop, of this version or an earlier one; left as it is.
    """
    state = deepcopy(dict(loops))
    epochs, batches = state[EPOCHS], state[BATCHES]
    is_inside = _is_inside_epoch(state)
    for counts in (epochs["total"], epochs["current"]):
        begun = counts["processed"] + int(is_inside)
        counts.update(ready=begun, started=begun, completed=counts["processed"])
    for counts in (batches["total"], batches["current"]):
        counts.update(ready=counts["processed"], completed=counts["processed"])
        counts["started"] = counts["processed"]
    return state


def is_unfinished(loops: Mapping[str, Any]) -> bool:
    """Return whether a step's validation was still to come, as far as one is due.

    Args:
        loops: State of a fit loop before it is settled.
    """
    batches, validation = loops[BATCHES]["total"], loops[VALIDATION]
    if not _is_inside_epoch(loops):
        return False
    if batches["completed"] < batches["processed"]:  # saved as the batch ended
        return True
    counts = validation["current"]
    is_measured = validation["is_last_batch"] and counts["ready"] == counts["completed"]
    return not is_measured  # saved in the middle of the validation


def _is_inside_epoch(loops: Mapping[str, Any]) -> bool:
    """Return whether batches or the end of an epoch were still to come.

    The epoch's own counters do not say so in runs that version 0.1.0 had continued.
    """
    epochs, batches = loops[EPOCHS]["total"], loops[BATCHES]
    if epochs["processed"] < epochs["started"]:
        return True
    counts = batches["current"]
    return bool(counts["completed"] < counts["processed"])


class EpochLoop(_TrainingEpochLoop):
    """Finishes the step that a checkpoint was written at before it takes the next batch."""

    has_step_to_finish = False
    has_validation_to_do = False

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Train on a batch, or do nothing, upon which follows what follows a batch."""
        if not self.has_step_to_finish:
            super().advance(data_fetcher)
            return
        self.has_step_to_finish = False
        self.val_loop.restarting = False  # it begins anew, since its sums are not saved
        self._skip_next_val = not self.has_validation_to_do

    @property
    def done(self) -> bool:
        """Whether all batches of the epoch are trained on, and the last step is finished."""
        return not self.has_step_to_finish and super().done


class FitLoop(_FitLoop):
    """A fit loop whose counters hold after any number of continuations."""

    epoch_loop: EpochLoop

    def load_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Go on from a state.

        Args:
            state_dict: As saved at the end of a step, a validation or an epoch.
            prefix: Before its keys; there is none.
        """
        super().load_state_dict(settled(state_dict), prefix)
        is_inside = _is_inside_epoch(state_dict)
        _Loop.restarting.fset(self, is_inside)  # type: ignore[attr-defined]
        self.epoch_loop.has_step_to_finish = is_inside
        self.epoch_loop.has_validation_to_do = is_unfinished(state_dict)

    @property
    def done(self) -> bool:
        """Whether the training has come to its end, and its last step is finished."""
        return not self.epoch_loop.has_step_to_finish and super().done
