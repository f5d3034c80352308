import numpy as np
import pytest

from ssl_swin.data.rle import decode_rle, encode_rle


def test_list__counts_down_the_columns_from_zeros():
    mask = decode_rle({"size": [2, 3], "counts": [1, 2, 1, 1, 1]}, (2, 3))
    assert mask.dtype == np.uint8 and mask.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert decode_rle({"size": [1, 2], "counts": [0, 2]}, (1, 2)).tolist() == [[1, 1]]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_text__is_what_the_coco_api_writes(share):
    coco = pytest.importorskip("pycocotools.mask")
    generator = np.random.default_rng(0)
    for size in ((7, 5), (61, 40), (300, 200)):
        mask = (generator.random(size) < share).astype(np.uint8)
        mask[10:, 3:] = mask[5, 1]  # long runs, and differences that are negative
        rle = coco.encode(np.asfortranarray(mask))
        assert decode_rle(rle, size).tolist() == mask.tolist()
        as_text = {"size": list(size), "counts": rle["counts"].decode()}
        assert decode_rle(as_text, size).tolist() == mask.tolist()
        assert encode_rle(mask) == as_text


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ([1, 2], "no .*size"),
        ({"counts": [6]}, "no .*size"),
        ({"size": [3, 2], "counts": [6]}, "a mask is 3 x 2 px .* its image 2 x 3"),
        ({"size": [2, 3], "counts": [5]}, "of 5 px in all, its image has 6"),
        ({"size": [2, 3], "counts": [7, -1]}, "a run of a mask has -1 px"),
        ({"size": [2, 3], "counts": [5.5, 0.5]}, "neither whole numbers nor a text"),
        ({"size": [2, 3], "counts": [[6]]}, "neither whole numbers nor a text"),
        ({"size": [2, 3], "counts": None}, "neither whole numbers nor a text"),
        ({"size": [2, 3], "counts": []}, "of 0 px in all"),
        ({"size": [2, 3], "counts": ""}, "of 0 px in all"),
        ({"size": [2, 3], "counts": "\x01"}, "no text of run lengths"),
        ({"size": [2, 3], "counts": "é"}, "no text of run lengths|px in all"),
        ({"size": [2, 3], "counts": "P"}, "no text of run lengths"),
        ({"size": [2, 3], "counts": "oooooooooo0"}, "a number that no image has pixels for"),
    ],
)
def test_refuses(rle, message):
    with pytest.raises(ValueError, match=message):
        decode_rle(rle, (2, 3))
