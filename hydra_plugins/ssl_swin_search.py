"""Where Hydra looks for sweepers; the search itself is `ssl_swin.launch.search`."""

from ssl_swin.launch.search import Search


class OptunaSweeper(Search):
    """`hydra/sweeper=optuna`."""
