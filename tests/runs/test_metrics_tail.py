import io

import pytest

from ssl_swin.runs import metrics_tail
from ssl_swin.runs.metrics_tail import lines_from_end


@pytest.mark.parametrize("block", [1, 3, 7, 4096])
@pytest.mark.parametrize(
    "text", [b"", b"a\n", b"head\n1,2\n3,4\n", b"head\n\n\n", b"head\n" + b"x" * 100 + b"\n5\n6"]
)
def test_lines_from_end(monkeypatch: pytest.MonkeyPatch, text: bytes, block: int) -> None:
    monkeypatch.setattr(metrics_tail, "_BLOCK_BYTES", block)
    file = io.BytesIO(text)
    head = len(file.readline())
    lines = io.BytesIO(text[head:]).readlines()
    assert list(lines_from_end(file, head)) == lines[::-1]
    assert list(lines_from_end(file, 0)) == io.BytesIO(text).readlines()[::-1]


class Counted(io.BytesIO):
    """Counts the bytes that are read."""

    num_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.num_read += len(found)
        return found


def test_lines_from_end__reads_no_more_than_is_asked_for() -> None:
    file = Counted(b"1,2\n" * 100_000)
    assert next(lines_from_end(file, 0)) == b"1,2\n"
    assert file.num_read == 4096
