from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.interpolate import RectBivariateSpline
from torch import Tensor

from ssl_swin.encoders.beit import beit
from ssl_swin.encoders.resize import fit_state_to, resize_bias_table, resize_encoder
from ssl_swin.encoders.spline import geometric_offsets
from ssl_swin.encoders.swin import swin
from ssl_swin.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# resize_bias_table


def test_resize_bias_table__is_the_originals():
    """One head of a table, before and after the original's change from window 6 to 7."""
    golden = np.load(GOLDEN / "bias_window_6_to_7.npz")
    resized = resize_bias_table(torch.from_numpy(golden["before"]), 6, 7)
    torch.testing.assert_close(resized, torch.from_numpy(golden["after"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("source", "target"), [(6, 7), (12, 14), (7, 12), (12, 24)])
def test_resize_bias_table__is_the_originals_for_all_its_windows(source, target):
    golden = np.load(GOLDEN / "rel_pos_bias_remap.npz")
    before, after = (golden[f"w{source}_to_w{target}_{end}"] for end in ("in", "out"))
    resized = resize_bias_table(torch.from_numpy(before), source, target)
    torch.testing.assert_close(resized, torch.from_numpy(after), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "target"),
    [(6, 7), (7, 6), (12, 6), (3, 5), (2, 3), (4, 8), ((4, 6), (7, 3)), ((2, 8), (8, 8))],
)
def test_resize_bias_table__is_scipys_spline(source, target):
    """Of degree 3, or 2 where there are only three offsets."""
    (high, wide), (new_high, new_wide) = (
        (window, window) if isinstance(window, int) else window for window in (source, target)
    )
    table = noise((2 * high - 1) * (2 * wide - 1), 3).double()
    resized = resize_bias_table(table, source, target)
    rows, columns = geometric_offsets(high, new_high), geometric_offsets(wide, new_wide)
    wanted = [np.arange(1 - side, side) for side in (new_high, new_wide)]
    for head in range(3):
        values = table[:, head].numpy().reshape(len(rows), len(columns))
        kx, ky = min(3, len(rows) - 1), min(3, len(columns) - 1)
        expected = RectBivariateSpline(rows, columns, values, kx=kx, ky=ky, s=0)(*wanted)
        np.testing.assert_allclose(resized[:, head], expected.ravel(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("source", "target", "ratio", "outermost"),
    [
        (6, 7, 1.09128, 6.00001),
        (12, 14, 1.03289, 12.99994),
        (7, 14, 1.30762, 13.00000),
        (6, 12, 1.40263, 11.00001),
        (7, 6, 1.01, 6.15202),  # at the bound: 1 + 1.01 + ... + 1.01^5
    ],
)
def test_geometric_offsets__have_the_originals_ratio(source, target, ratio, outermost):
    offsets = geometric_offsets(source, target)
    assert offsets[source - 1] == 0
    assert offsets[source] == 1
    assert offsets[source + 1] - 1 == pytest.approx(ratio, abs=5e-6)
    assert offsets[-1] == pytest.approx(outermost, abs=2e-5)
    np.testing.assert_array_equal(offsets, -offsets[::-1])


@pytest.mark.parametrize(("source", "target"), [(6, 7), (6, 3), (1, 4), (4, 1), (2, 5)])
def test_resize_bias_table__keeps_what_must_stay(source, target):
    """The bias of no offset, constants, and mirror symmetry."""
    side, new_side = 2 * source - 1, 2 * target - 1
    table = noise(side**2, 2)
    resized = resize_bias_table(table, source, target)
    assert resized.shape == (new_side**2, 2)
    torch.testing.assert_close(resized[new_side**2 // 2], table[side**2 // 2])
    flat = torch.full((side**2, 1), 0.3)
    torch.testing.assert_close(
        resize_bias_table(flat, source, target), torch.full((new_side**2, 1), 0.3)
    )
    mirrored = resize_bias_table(table.flip(0), source, target)
    torch.testing.assert_close(mirrored, resized.flip(0))


def test_resize_bias_table__type_and_identity():
    table = noise(49, 2).bfloat16()
    assert resize_bias_table(table, 4, (4, 4)) is table
    assert resize_bias_table(table, 4, 6).dtype == torch.bfloat16


def test_resize_bias_table__of_another_window():
    with pytest.raises(UserError, match=r"of window \(2, 4\) has 21 rows, this table has 49"):
        resize_bias_table(noise(49, 2), (2, 4), 4)


# fit_state_to


def test_fit_state_to__resizes_tables_and_passes_the_rest_through(tiny_encoder):
    small, large = tiny_encoder(), tiny_encoder(img_size_px=96, window_size=6)
    state = {**small.model.state_dict(), "stranger": torch.ones(1)}
    fitted, notes = fit_state_to(state, large)
    tables = [name for name in state if name.endswith("bias_table")]
    assert len(tables) == len(notes) == 6
    first = "layers.0.blocks.0.attn.relative_position_bias_table"
    assert f"{first}: resized from window 4 to 6" in notes
    last = "layers.3.blocks.0.attn.relative_position_bias_table"
    assert f"{last}: resized from window 2 to 3" in notes  # the whole map, smaller than a window
    assert fitted[last].equal(resize_bias_table(state[last], 2, 3))
    assert all(fitted[name] is state[name] for name in state.keys() - set(tables))
    assert state[first].shape == (49, 1)


def test_fit_state_to__nothing_to_resize(tiny_encoder):
    encoder = tiny_encoder()
    state = encoder.model.state_dict()
    fitted, notes = fit_state_to(state, encoder)
    assert notes == []
    assert all(fitted[name] is state[name] for name in state)


def test_fit_state_to__a_table_of_no_square_window(tiny_encoder):
    wide, square = tiny_encoder(img_size_px=(32, 64)), tiny_encoder()
    state = wide.model.state_dict()
    with pytest.raises(UserError, match=r"layers\.\d.* rows, which are those of no square window"):
        fit_state_to(state, square)
    fitted, _ = fit_state_to(state, square, source_windows=wide.bias_windows())
    square.model.load_state_dict(fitted)


# resize_encoder


def thin(img_size_px, window_size: int, **changes):
    arguments = {"embed_dim": 4, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)} | changes
    return swin(version=1, img_size_px=img_size_px, window_size=window_size, **arguments)


@pytest.mark.parametrize(
    ("old", "to", "new"),
    [
        ((192, 6), 224, ((224, 224), 7)),  # the recipe's own
        ((192, 12), 224, ((224, 224), 14)),
        ((192, 6), None, ((192, 192), 6)),
        ((192, 6), (192, 384), ((192, 384), 6)),  # the shorter side decides
        ((192, 6), [384, 96], ((384, 96), 3)),
        ((64, 1), 96, ((96, 96), 1)),  # scaled, it would be no whole number
    ],
)
def test_resize_encoder__window_follows_the_image(old, to, new):
    resized = resize_encoder(thin(*old), img_size_px=to)
    assert (resized.img_size_px, resized.model_args["window_size"]) == new


def test_resize_encoder__window_given():
    resized = resize_encoder(thin(192, 6), img_size_px=224, window_size=14)
    assert resized.bias_windows() == (14, 14, 14, 7)
    resized = resize_encoder(thin(192, 6), window_size=3)
    assert (resized.img_size_px, resized.bias_windows()) == ((192, 192), (3, 3, 3, 3))


def test_resize_encoder__changes_nothing_but_the_tables(tiny_encoder):
    encoder = tiny_encoder()
    before = {name: t.clone() for name, t in encoder.model.state_dict().items()}
    resized = resize_encoder(encoder, img_size_px=(96, 192))
    windows = zip(encoder.bias_windows(), resized.bias_windows(), strict=True)
    tables = dict(enumerate(windows))
    assert tables == {0: (4, 6), 1: (4, 6), 2: (4, 6), 3: (2, (3, 6))}
    for name, tensor in resized.model.state_dict().items():
        if name.endswith("bias_table"):
            source, target = tables[int(name.split(".")[1])]
            assert tensor.equal(resize_bias_table(before[name], source, target)), name
        else:
            assert tensor.equal(before[name]), name
    assert all(t.equal(before[name]) for name, t in encoder.model.state_dict().items())
    with torch.no_grad():
        assert resized(noise(1, 3, 96, 192)).shape == (1, 64, 3, 6)


def test_resize_encoder__and_back_again_is_another_function(tiny_encoder):
    """A window made smaller loses the outermost offsets; the same size loses nothing."""
    encoder, images = tiny_encoder(), noise(1, 3, 64, 64)
    same = resize_encoder(encoder, img_size_px=64, window_size=4).eval()
    there_and_back = resize_encoder(resize_encoder(encoder, img_size_px=32), img_size_px=64).eval()
    with torch.no_grad():
        assert same(images).equal(encoder(images))
        assert not torch.allclose(there_and_back(images), encoder(images), atol=1e-4)


def test_resize_encoder__v2_is_the_function_of_timms_own_resizing(tiny_encoder):
    """timm is exact where the model was built with the windows of pretraining, as ours are."""
    encoder = tiny_encoder(version=2)
    resized = resize_encoder(encoder, img_size_px=96).eval()
    assert resized.model_args["pretrained_window_sizes"] == (4, 4, 4, 2)
    assert resized.model_args["window_size"] == 6
    encoder.model.set_input_size((96, 96), window_size=(6, 6))
    images = noise(2, 3, 96, 96)
    with torch.no_grad():
        theirs = encoder.model.forward_features(images).permute(0, 3, 1, 2)
        torch.testing.assert_close(theirs, resized(images), rtol=0, atol=1e-5)
    again = resize_encoder(resized, img_size_px=64)
    assert again.model_args["pretrained_window_sizes"] == (4, 4, 4, 2)


def test_resize_encoder__options_of_the_training_to_come(tiny_encoder):
    resized = resize_encoder(
        tiny_encoder(), img_size_px=96, drop_path_rate=0.5, grad_checkpointing=True
    )
    assert resized.model.layers[3].blocks[0].drop_path1.drop_prob == 0.5
    assert resized.model.layers[0].grad_checkpointing


@pytest.mark.parametrize("shared", [True, False])
def test_resize_encoder__of_a_vit(shared):
    """The offsets of patches are resized; the three of the class token lie nowhere."""
    torch.manual_seed(0)
    encoder = beit(
        img_size_px=32, patch_size_px=8, embed_dim=8, depth=2, num_heads=2,
        shared_position_bias=shared,
    )  # fmt: skip
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    resized = resize_encoder(encoder, img_size_px=(48, 64)).eval()
    ours, theirs = encoder.model.state_dict(), resized.model.state_dict()
    tables = [name for name in ours if name.endswith("bias_table")]
    assert len(tables) == (1 if shared else 2)
    for name in tables:
        assert theirs[name][-3:].equal(ours[name][-3:])
        assert theirs[name][:-3].equal(resize_bias_table(ours[name][:-3], 4, (6, 8)))
    assert all(theirs[name].equal(ours[name]) for name in ours.keys() - set(tables))
    with torch.no_grad():
        assert resized(noise(1, 3, 48, 64)).shape == (1, 8, 6, 8)


def test_resize_encoder__of_positions_at_the_input():
    encoder = beit(
        img_size_px=32, patch_size_px=8, embed_dim=8, depth=2, num_heads=2, fixed_positions=True
    )
    resized = resize_encoder(encoder, img_size_px=(48, 64))
    ours, theirs = encoder.model.pos_embed, resized.model.pos_embed
    assert theirs.shape == (1, 1 + 6 * 8, 8) and not theirs.requires_grad
    assert theirs[:, 0].equal(ours[:, 0])
    grid = ours[0, 1:].T.view(1, 8, 4, 4)
    expected = F.interpolate(grid, (6, 8), mode="bicubic", antialias=True)
    torch.testing.assert_close(theirs[0, 1:].T.view(1, 8, 6, 8), expected)
    assert resize_encoder(resized, img_size_px=(48, 64)).model.pos_embed.equal(theirs)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        (80, r"80 x 80 px, the encoder's own of 4 tokens at 64 x 64.* a square of 32, 64, 96, 128"),
        ((64, 96), r"64 x 96 px.* set window_size, or take a square of"),
        ("large", "img_size_px must be a number or .height, width., got 'large'"),
        (96.0, r"must be a number or .height, width., got 96\.0"),
        (0, "must be a number"),
        ([64, "wide"], "must be a number"),
        ([64, 64, 64], r"must be a side or \(height, width\)"),
    ],
)
def test_resize_encoder__a_size_that_does_not_fit(to, message):
    with pytest.raises(UserError, match=message):
        resize_encoder(thin(64, 4), img_size_px=to)


def test_resize_encoder__a_window_that_does_not_fit():
    with pytest.raises(UserError, match="windows of 5 tokens and 4 stages; sides that do: 160"):
        resize_encoder(thin(64, 4), img_size_px=96, window_size=5)
    with pytest.raises(UserError, match="window_size must be a whole number of at least 1, got 0"):
        resize_encoder(thin(64, 4), window_size=0)
    vit = beit(img_size_px=32, patch_size_px=8, embed_dim=8, depth=1, num_heads=2)
    with pytest.raises(UserError, match="window_size=4 is for a Swin; a ViT"):
        resize_encoder(vit, window_size=4)
