"""Exceptions whose message is for the person at the keyboard."""


class UserError(ValueError):
    """Bad input, with a message that says what was wrong, the value, and the way out.

    The command line prints the message alone and exits with status 2; library callers can catch
    it as the `ValueError` it is. Anything else that is raised is a bug and keeps its traceback.
    """


class TrainingGaveUp(RuntimeError):
    """Training cannot go on by itself: steps are not finite again and again, or it collapsed.

    The command line prints the message alone and exits with status 3.
    """
