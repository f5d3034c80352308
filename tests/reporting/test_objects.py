"""Objects drawn into images."""

import numpy as np
import pytest
import torch

from ssl_swin.figure import ClassColumn, ObjectColumn, Objects
from ssl_swin.reporting.drawing import INK, PAPER, class_colours
from ssl_swin.reporting.figures import MASKED_GREY, draw_figure
from ssl_swin.reporting.objects import draw_objects, ink_on_colour

CLASSES = ("car", "dog")
RED, BLUE = (tuple(colour) for colour in class_colours(2))


def blank(height: int = 40, width: int = 60) -> np.ndarray:
    return np.zeros((1, height, width, 3), dtype=np.uint8)


def objects(boxes, labels, scores=None, masks=None) -> Objects:
    return Objects(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        None if scores is None else torch.tensor(scores),
        masks,
    )


def of_colour(image: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    return (image == np.array(colour)).all(axis=-1)


def test_draw_objects__boxes_enclose_the_pixels_from_corner_to_corner() -> None:
    (drawn,) = draw_objects(blank(), [objects([[3, 20, 7, 23]], [1])], CLASSES)
    expected = np.zeros((40, 60), dtype=bool)
    expected[20:23, 3:7] = True
    expected[21, 4:6] = False
    assert (of_colour(drawn, BLUE) == expected).all()
    assert (drawn[~expected] == 0).all()  # too narrow for any text


def test_draw_objects__nothing_of_an_image_without_objects() -> None:
    (drawn,) = draw_objects(blank(), [objects([], [])], CLASSES)
    assert (drawn == 0).all()


def test_draw_objects__tints_the_pixels_of_masks_that_may_be_smaller_than_the_image() -> None:
    masks = torch.zeros(1, 30, 50, dtype=torch.bool)
    masks[0, 25:28, 10:12] = True
    tiles = blank() + np.uint8(100)
    (drawn,) = draw_objects(tiles, [objects([[0, 0, 2, 2]], [0], masks=masks)], CLASSES)
    assert (drawn[25:28, 10:12] == np.round(100 + 0.45 * (np.array(RED) - 100.0))).all()
    drawn[25:28, 10:12] = 100
    assert (drawn[2:] == 100).all() and (tiles == 100).all()


def test_draw_objects__the_first_object_lies_on_top() -> None:
    same = [[2, 20, 9, 29], [2, 20, 9, 29]]
    (drawn,) = draw_objects(blank(), [objects(same, [1, 0])], CLASSES)
    assert of_colour(drawn, BLUE)[20, 2] and not of_colour(drawn, RED).any()


@pytest.mark.parametrize(
    ("width", "score", "text_px"),
    [(50, [0.5], True), (20, [0.5], True), (20, None, True), (9, [0.5], False), (9, None, False)],
)
def test_draw_objects__writes_on_a_box_what_is_not_much_wider(width, score, text_px) -> None:
    box = [[0, 20, width, 30]]
    (drawn,) = draw_objects(blank(), [objects(box, [0], score)], CLASSES)
    assert of_colour(drawn[:20], RED).any() == text_px


def test_draw_objects__of_one_class_the_score_alone() -> None:
    box = [[0, 20, 50, 30]]
    (truth,) = draw_objects(blank(), [objects(box, [0])], CLASSES[:1])
    assert not of_colour(truth[:20], RED).any()
    (alone,) = draw_objects(blank(), [objects(box, [0], [0.5])], CLASSES[:1])
    (named,) = draw_objects(blank(), [objects(box, [0], [0.5])], CLASSES)
    widths = [of_colour(each[:20], RED).any(axis=0).sum() for each in (alone, named)]
    assert 10 < widths[0] < widths[1]


def test_draw_objects__a_name_at_the_right_border_stays_inside() -> None:
    (drawn,) = draw_objects(blank(), [objects([[45, 20, 60, 30]], [0], [0.99])], CLASSES)
    assert of_colour(drawn[8:20], RED).any(axis=0)[-1]
    (drawn,) = draw_objects(blank(), [objects([[20, 0, 55, 30]], [0], [0.99])], CLASSES)
    assert of_colour(drawn[:12, 20:55], RED).sum() > 200  # below the border where none is above


def test_ink_on_colour__is_light_on_dark_and_dark_on_light() -> None:
    assert ink_on_colour((250, 240, 60)) == INK and ink_on_colour((40, 60, 200)) == PAPER


def test_figure__shows_each_group_of_bands_and_the_classes_in_it() -> None:
    column = ObjectColumn(
        "truth",
        torch.zeros(1, 2, 40, 60),
        objects=(objects([[3, 20, 7, 23]], [1]),),
        classes=CLASSES,
    )
    picture = np.asarray(draw_figure((column,), [0.0] * 2, [1.0] * 2, bands=[[0], [1]]))
    assert picture.shape == (16 + 42 + 16, 2 * 62, 3)
    for left in (0, 62):
        assert of_colour(picture[16:56, left : left + 60], BLUE).sum() == 4 * 3 - 2
    legend = picture[-16:]
    assert of_colour(legend, BLUE).sum() == 100 and not of_colour(legend, RED).any()


def test_figure__of_many_classes_has_a_legend_of_several_lines() -> None:
    column = ObjectColumn(
        "truth",
        torch.zeros(1, 3, 8, 60),
        objects=(objects([[0, 0, 1, 1]] * 9, list(range(9))),),
        classes=tuple("abcdefghi"),
    )
    picture = np.asarray(draw_figure((column,), [0.0] * 3, [1.0] * 3))
    height, width, _ = picture.shape
    lines, rest = divmod(height - 16 - 10, 16)
    assert width == 62 and lines > 2 and rest == 0
    legend = picture[16 + 10 :]
    for colour in class_colours(9):
        assert of_colour(legend, colour).sum() == 100


def test_class_column__tints_pixels_and_names_the_classes_that_are_there() -> None:
    labels = torch.tensor([[[1, 1, -1]]])
    image = torch.tensor([0.0, 0.4, 1.0]).expand(1, 3, 1, 3)
    column = ClassColumn("classes", image, labels=labels, classes=CLASSES)
    picture = np.asarray(draw_figure((column,), [0.0] * 3, [1.0] * 3))
    tinted = picture[16, :3].astype(int)
    for found, level, colour in zip(
        tinted, (0, 102, 255), (BLUE, BLUE, (MASKED_GREY,) * 3), strict=True
    ):
        assert np.abs(found - (level + np.array(colour)) / 2).max() <= 0.5
    legend = picture[-16:]
    assert not of_colour(legend, RED).any()
