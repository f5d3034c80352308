"""A run's configuration in the table of hyperparameters of TensorBoard."""

from collections.abc import Mapping
from typing import Any

from ssl_swin.runs.dotted_names import by_dotted_name


def write_hyperparameters(writer: Any, settings: Mapping[str, Any], *, judged_by: Any) -> None:
    """Writes the configuration, without a value for any metric: the scalars have them.

    (Lightning writes it only together with a metric's value, which stands in the curves then.)

    Args:
        writer: A `SummaryWriter` of torch or of tensorboardX.
        settings: The resolved configuration.
        judged_by: Name of the metric to show beside it, if there is one.
    """
    if type(writer).__module__.startswith("tensorboardX"):
        from tensorboardX.summary import hparams  # type: ignore[import-not-found]
    else:
        from torch.utils.tensorboard.summary import hparams
    metrics = {judged_by: 0.0} if isinstance(judged_by, str) else {}
    for summary in hparams(_listed(settings), metrics):
        writer._get_file_writer().add_summary(summary)


def _listed(settings: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Return one value per dotted name; lists are written out, and what is null is left out."""
    named = by_dotted_name(settings)
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in named.items()
        if value is not None
    }
