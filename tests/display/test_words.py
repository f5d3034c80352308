import pytest

from ssl_swin.display.words import Part, duration, plain_line, rate, terminal_line, time_left

PARTS = [
    Part("step 1,240 of 9,400", short="1,240/9,400"),
    Part("epoch 3 of 24", keep=5, short="epoch 3/24"),
    Part("train/loss 0.412", keep=1, short="loss 0.412"),
    Part("812 images/s", keep=3),
    Part("waiting for data 2 %", keep=4, short="data wait 2 %"),
    Part("1 h 12 min left", keep=2),
]


def test_plain_line__has_everything() -> None:
    assert plain_line(PARTS) == (
        "step 1,240 of 9,400 · epoch 3 of 24 · train/loss 0.412 · 812 images/s · "
        "waiting for data 2 % · 1 h 12 min left"
    )


def test_terminal_line__by_width() -> None:
    at_80 = "1,240/9,400 · loss 0.412 · 812 images/s · data wait 2 % · 1 h 12 min left"
    assert terminal_line(PARTS, 0.13, 79) == at_80
    assert terminal_line(PARTS, 0.13, 30) == "1,240/9,400 · loss 0.412"
    assert terminal_line(PARTS, 0.13, 5) == "1,240"
    wide = terminal_line(PARTS, 0.25, 160)
    assert wide == "━━━━━───────────────" + " " + plain_line(PARTS)
    assert terminal_line(PARTS, None, 160) == plain_line(PARTS)


@pytest.mark.parametrize("width", range(1, 200))
def test_terminal_line__never_wider(width: int) -> None:
    for ratio in (None, 0.0, 0.5, 1.0, 1.5):
        assert 1 <= len(terminal_line(PARTS, ratio, width)) <= width


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.2, "1 s"),
        (59.0, "59 s"),
        (59.5, "1 min"),
        (61.0, "2 min"),
        (3599.0, "1 h 0 min"),
        (4320.0, "1 h 12 min"),
        (86400.0, "1 d 0 h"),
        (100 * 3600.0, "4 d 4 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rate() -> None:
    shown = [rate(number, "images") for number in (0.0123, 8.126, 83.44, 99.96, 2500.4)]
    assert [text.removesuffix(" images/s") for text in shown] == [
        "0.0123",
        "8.13",
        "83.4",
        "100",
        "2,500",
    ]


def test_time_left__by_what_was_done_since_the_start() -> None:
    assert time_left(60, 100, 20.0, 10) == 80.0  # 50 of the 60 were done before
    assert time_left(100, 100, 20.0, 10) == 0.0
    assert time_left(60, None, 20.0, 10) is None
    assert time_left(60, 100, 20.0, 0) is None
