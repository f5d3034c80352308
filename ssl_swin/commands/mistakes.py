"""What the system says of a user's mistake during a command."""

from ssl_swin.errors import UserError

# Errors among which some are a user's mistake: a path that cannot be used, too little memory.
OF_THE_SYSTEM = (OSError, MemoryError, RuntimeError)


def as_user_error(error: Exception) -> UserError:
    """Return the message for a user's mistake.

    Args:
        error: One of `OF_THE_SYSTEM`.

    Raises:
        Exception: The error itself, if it says of no such mistake.
    """
    from ssl_swin.launch.user_errors import only_user_errors  # imports Hydra

    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):
        return UserError(f"a link leads in a circle: {str(error).rpartition('from ')[2]}")
    try:
        with only_user_errors("pretrain", None):
            raise error
    except UserError as ours:
        return ours
