"""What the server takes, and how it says no."""

from dataclasses import dataclass

from ssl_swin.arguments import Above0, NonNegative, Positive, checked
from ssl_swin.errors import UserError

MEGABYTE = 10**6
TIMES_HELD = 8  # bodies of the largest size that may lie in memory together
TIMES_DRAINED = 4  # of a body's limit that is read, and thrown away, before its refusal is sent


@checked
@dataclass(frozen=True)
class Limits:
    """Limits of size and time.

    Attributes:
        batch_size: Most images that go through the network together.
        max_wait_ms: Longest that the first image of a batch waits for others.
        max_image_mb: Largest image file, in 10^6 bytes.
        max_request_mb: Largest body, in 10^6 bytes; eight of them are held at most.
        max_images: Most images in one request.
        queue: Most images that are decoded, wait or are computed at a time.
        timeout_s: Longest from the head of a request to its answer.

    Raises:
        UserError: If a value is not allowed, or two contradict each other.
    """

    batch_size: Positive = 32
    max_wait_ms: NonNegative = 5.0
    max_image_mb: Above0 = 20.0
    max_request_mb: Above0 = 64.0
    max_images: Positive = 32
    queue: Positive = 128
    timeout_s: Above0 = 30.0

    def __post_init__(self) -> None:
        if self.queue < self.max_images:
            raise UserError(
                f"a queue of {self.queue} images cannot take a request of {self.max_images}: raise "
                "--queue, or lower --max-images"
            )
        if self.max_request_mb < self.max_image_mb:
            raise UserError(
                f"a request of {self.max_request_mb:g} MB cannot hold an image of "
                f"{self.max_image_mb:g} MB: raise --max-request-mb, or lower --max-image-mb"
            )

    @property
    def image_bytes(self) -> int:
        """Largest image file."""
        return int(self.max_image_mb * MEGABYTE)

    @property
    def request_bytes(self) -> int:
        """Largest body."""
        return int(self.max_request_mb * MEGABYTE)

    @property
    def held_bytes(self) -> int:
        """Most of all bodies together."""
        return TIMES_HELD * self.request_bytes


class Refusal(Exception):
    """A request that gets no result, and the sentence that its client is told.

    Attributes:
        status: HTTP status.
        message: The sentence.
        closes: Whether the connection ends with it, as more of the request may still come.
    """

    def __init__(self, status: int, message: str, *, closes: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.closes = status, message, closes

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer besides the usual ones."""
        retry = {"retry-after": "1"} if self.status == 503 else {}
        return retry | ({"connection": "close"} if self.closes else {})


def too_large(limits: Limits) -> Refusal:
    """Return the refusal of a body."""
    return Refusal(
        413,
        f"the request is larger than {limits.max_request_mb:g} MB: send smaller images, or fewer "
        "at a time",
        closes=True,
    )
