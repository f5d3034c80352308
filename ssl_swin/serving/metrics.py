"""Counters and histograms in the text format of Prometheus."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PREFIX = "ssl_swin"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts of values by upper bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Count nothing yet.

        Args:
            bounds: Upper bounds, ascending; values above the last one are counted too.
        """
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str = "") -> Iterator[str]:
        """Write the histogram, its counts cumulated.

        Args:
            name: Of the metric.
            labels: As `path="/predict"`.
        """
        between = "," if labels else ""
        total = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            total += count
            shown = bound if isinstance(bound, str) else f"{bound:g}"
            yield f'{name}_bucket{{{labels}{between}le="{shown}"}} {total}'
        braces = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{braces} {self.sum:.9g}"
        yield f"{name}_count{braces} {total}"


class Metrics:
    """What the server counts; touched by the event loop alone.

    Attributes:
        requests: Answered requests by (path, status); 499 is a client that left.
        seconds: From the head of a request to its answer, by path.
        batches: Images of each batch.
        compute_s: Time of the network.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds: dict[str, Histogram] = {}
        self.batches = Histogram(IMAGES)
        self.compute_s = 0.0

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request.

        Args:
            path: One that the server knows, or "other": clients must not make up metrics.
            status: HTTP status.
            seconds: It took.
        """
        self.requests[path, status] += 1
        self.seconds.setdefault(path, Histogram(SECONDS)).add(seconds)

    def count_batch(self, num_images: int, seconds: float) -> None:
        """Count a batch that went through the network."""
        self.batches.add(num_images)
        self.compute_s += seconds

    def text(self, **now: int) -> str:
        """Write everything.

        Args:
            now: Gauges by name.
        """
        lines = _head("requests_total", "counter", "Answered requests; 499 is a client that left.")
        lines += [
            f'{PREFIX}_requests_total{{path="{path}",status="{status}"}} {count}'
            for (path, status), count in sorted(self.requests.items())
        ]
        lines += _head("request_seconds", "histogram", "From the head of a request to its answer.")
        for path, histogram in sorted(self.seconds.items()):
            lines += histogram.lines(f"{PREFIX}_request_seconds", f'path="{path}"')
        lines += _head("batch_images", "histogram", "Images that went through the network at once.")
        lines += self.batches.lines(f"{PREFIX}_batch_images")
        lines += _head("compute_seconds_total", "counter", "Time of the network.")
        lines += [f"{PREFIX}_compute_seconds_total {self.compute_s:.9g}"]
        for name, value in now.items():
            lines += _head(name, "gauge", f"Number of {name.replace('_', ' ')} now.")
            lines += [f"{PREFIX}_{name} {value}"]
        return "\n".join([*lines, ""])


def _head(name: str, kind: str, told: str) -> list[str]:
    return [f"# HELP {PREFIX}_{name} {told}", f"# TYPE {PREFIX}_{name} {kind}"]
