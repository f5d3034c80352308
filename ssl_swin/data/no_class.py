"""What is said of a mask that holds what is no class."""

from ssl_swin.errors import UserError


class NoClass(UserError):
    """A value or colour of a mask is no class.

    Attributes:
        problem: What and where, without the way out.
        way_out: What to do where a configuration says what masks stand for.
    """

    def __init__(self, problem: str, way_out: str) -> None:
        super().__init__(f"{problem}: {way_out}")
        self.problem = problem
        self.way_out = way_out

    def __reduce__(self) -> tuple[type["NoClass"], tuple[str, str]]:
        return type(self), (self.problem, self.way_out)
