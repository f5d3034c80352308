from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_swin.encoders.beit import beit
from ssl_swin.encoders.swin import swin
from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask, random_mask
from ssl_swin.objectives.masked_images import MaskedBatch
from ssl_swin.objectives.simmim import SimMIM, masked_l1
from ssl_swin.objectives.targets import normalize_locally
from ssl_swin.pixels import normalize

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def masks(grid: tuple[int, int] = (2, 2), batch_size: int = 2) -> Tensor:
    return random_mask(grid, 0.5, np.random.default_rng(0), batch_size=batch_size)


def slow_masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> float:
    """The loss of the paper, pixel by pixel in double precision."""
    num_images, num_channels, height, width = target.shape
    rows, columns = mask.shape[1:]
    total = num_masked = 0.0
    for image in range(num_images):
        for y in range(height):
            for x in range(width):
                if mask[image, y * rows // height, x * columns // width]:
                    num_masked += 1
                    for channel in range(num_channels):
                        at = image, channel, y, x
                        total += abs(target[at].double() - prediction[at].double()).item()
    return total / (num_masked + 1e-5) / num_channels


@pytest.mark.parametrize("num_channels", [1, 3, 5])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 12)])
def test_masked_l1__equals_a_slow_loop(num_channels, height, width):
    prediction = noise(2, num_channels, height, width, seed=1)
    target = noise(2, num_channels, height, width, seed=2)
    mask = masks((4, 4))
    expected = slow_masked_l1(prediction, target, mask)
    assert masked_l1(prediction, target, mask).item() == pytest.approx(expected, rel=1e-6)


def test_masked_l1__is_an_average_over_the_whole_batch():
    target = torch.zeros(2, 1, 2, 2)
    prediction = torch.tensor([1.0, 4.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    mask = torch.tensor([[[True, True], [True, False]], [[True, False], [False, False]]])
    # Three pixels off by 1 and one off by 4; averaging image by image would give 2.5.
    assert masked_l1(prediction, target, mask).item() == pytest.approx(7 / 4, rel=1e-5)


def test_masked_l1__visible_pixels_do_not_matter():
    prediction, target, mask = noise(2, 3, 8, 8, seed=1), noise(2, 3, 8, 8, seed=2), masks()
    hidden = expand_mask(mask, (8, 8)).unsqueeze(1)
    loss = masked_l1(prediction, target, mask)
    assert masked_l1(prediction, torch.where(hidden, target, 9.0), mask) == loss
    assert masked_l1(torch.where(hidden, prediction, 9.0), target, mask) == loss
    assert masked_l1(torch.where(hidden, 9.0, prediction), target, mask) > 2 * loss


def test_masked_l1__nothing_masked_is_zero_and_finite():
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    assert masked_l1(noise(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), mask) == 0


def test_masked_l1__half_precision_predictions_are_compared_in_float32():
    prediction = noise(2, 3, 8, 8, seed=1).bfloat16()
    target, mask = noise(2, 3, 8, 8, seed=2), masks()
    loss = masked_l1(prediction, target, mask)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_masked_l1(prediction, target, mask), rel=1e-6)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("window_px", [None, 7])
def test_forward__the_encoder_never_sees_masked_pixels(tiny_encoder, version, window_px):
    model = SimMIM(tiny_encoder(version=version), normalize_target_window_px=window_px)
    images, mask = noise(2, 3, 64, 64), masks()
    hidden = expand_mask(mask, (64, 64)).unsqueeze(1)
    with torch.no_grad():
        output = model.reconstruct(images, mask)
        painted_over = model.reconstruct(torch.where(hidden, 5.0, images), mask)
        other_scene = model.reconstruct(torch.where(hidden, images, 5.0), mask)
    assert painted_over.prediction.equal(output.prediction)
    assert painted_over.features.equal(output.features)
    assert painted_over.loss != output.loss
    assert not other_scene.prediction.equal(output.prediction)


@pytest.mark.parametrize("version", [1, 2])
def test_forward__a_masked_patch_becomes_the_mask_token(tiny_encoder, version):
    model = SimMIM(tiny_encoder(version=version))
    images, mask = noise(2, 3, 64, 64), masks()
    with torch.no_grad():
        tokens = model.encoder.embed(images)
        for image in range(2):
            for y in range(16):
                for x in range(16):
                    if mask[image, y // 8, x // 8]:
                        tokens[image, y, x] = model.mask_token.flatten()
        output = model.reconstruct(images, mask)
        assert output.features.equal(model.encoder.encode(tokens))
        assert output.prediction.equal(model.decoder(output.features))
        expected = slow_masked_l1(output.prediction, images, mask)
    assert output.loss.item() == pytest.approx(expected, rel=1e-6)


def test_forward__coarse_and_expanded_masks_are_one(tiny_encoder):
    model = SimMIM(tiny_encoder())
    images, mask = noise(2, 3, 64, 64), masks()
    with torch.no_grad():
        coarse, fine = (
            model.reconstruct(images, mask),
            model.reconstruct(images, expand_mask(mask, (16, 16))),
        )
    assert coarse.loss == fine.loss
    assert coarse.prediction.equal(fine.prediction)


@pytest.mark.parametrize(("in_chans", "size"), [(1, (64, 64)), (5, (64, 128))])
def test_forward__shapes_follow_the_images(tiny_encoder, in_chans, size):
    model = SimMIM(tiny_encoder(in_chans=in_chans, img_size_px=size))
    images, mask = noise(2, in_chans, *size), masks((size[0] // 32, size[1] // 32))
    with torch.no_grad():
        output = model.reconstruct(images, mask)
    assert output.prediction.shape == images.shape
    assert output.features.shape == (2, 64, size[0] // 32, size[1] // 32)
    expected = slow_masked_l1(output.prediction, images, mask)
    assert output.loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("grid", [(5, 5), (2, 3), (32, 32)])
def test_forward__mask_does_not_fit_the_patches(tiny_encoder, grid):
    with pytest.raises(
        UserError, match=f"{grid[0]}x{grid[1]} patches does not fit a grid of 16x16"
    ):
        SimMIM(tiny_encoder()).reconstruct(noise(2, 3, 64, 64), masks(grid))


@pytest.mark.parametrize(("channel", "y", "x"), [(0, 0, 0), (1, 5, 2), (2, 31, 0), (2, 0, 31)])
def test_decoder__each_of_its_channels_paints_one_pixel_of_a_cell(tiny_encoder, channel, y, x):
    model = SimMIM(tiny_encoder())
    with torch.no_grad():
        model.decoder[0].weight.zero_()
        model.decoder[0].bias.zero_()
        model.decoder[0].bias[channel * 32 * 32 + y * 32 + x] = 1.0
        painted = model.reconstruct(noise(1, 3, 64, 64), masks(batch_size=1)).prediction
    expected = torch.zeros(1, 3, 64, 64)
    expected[0, channel, y::32, x::32] = 1.0
    assert painted.equal(expected)


def test_target__is_the_image_itself_without_a_window(tiny_encoder):
    images = noise(2, 3, 64, 64)
    assert SimMIM(tiny_encoder()).target(images).equal(images)


def test_mean_guess_loss__by_hand(tiny_encoder):
    images = torch.tensor([1.0, -2.0, 6.0]).view(1, 3, 1, 1).expand(2, 3, 64, 64)
    loss = SimMIM(tiny_encoder()).mean_guess_loss(images, masks())
    assert loss.item() == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize(("height", "width"), [(9, 12), (5, 4)])  # the second is all border
def test_normalize_locally__equals_a_slow_loop_over_windows(height, width):
    images = noise(2, 3, height, width, dtype=torch.float64) * 2 + 1
    expected = torch.empty_like(images)
    for y in range(height):
        for x in range(width):
            window = images[:, :, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].flatten(2)
            deviation = (window.var(dim=-1, unbiased=True) + 1e-6).sqrt()
            expected[:, :, y, x] = (images[:, :, y, x] - window.mean(dim=-1)) / deviation
    torch.testing.assert_close(normalize_locally(images, 7), expected, rtol=0, atol=1e-12)


def naive_target(images: Tensor, window_px: int) -> Tensor:
    """The reference's formula, `E[x^2] - E[x]^2`, as precise as its input."""
    pool = partial(F.avg_pool2d, kernel_size=window_px, stride=1, padding=window_px // 2)
    count = pool(torch.ones_like(images)) * window_px**2
    mean = pool(images, count_include_pad=False)
    variance = pool(images.square(), count_include_pad=False) - mean.square()
    deviation = ((variance * count / (count - 1)).clamp(min=0) + 1e-6).sqrt()
    return (images - mean) / deviation


@pytest.mark.parametrize("object_px", [0, 40])  # nothing, or a dark object before the background
def test_normalize_locally__float32_on_an_almost_flat_background(object_px):
    levels = 250 + 0.5 * noise(1, 3, 96, 96, dtype=torch.float64)
    levels[..., :object_px, :object_px] = 30 + 10 * noise(1, 3, object_px, object_px)
    images = normalize(levels, **IMAGENET)
    exact = naive_target(images.double(), 47)
    assert exact.std() > 0.8
    assert (naive_target(images, 47) - exact).abs().max() > 0.1
    found = normalize_locally(images, 47)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 1e-5


def test_normalize_locally__a_constant_image_is_zero():
    images = torch.tensor([2.0, -1.3, 0.1]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    assert normalize_locally(images, 47).abs().max() < 1e-3


@pytest.mark.parametrize("window_px", [None, 7])
def test_forward__target_and_loss_stay_in_float32_under_autocast(tiny_encoder, window_px):
    model = SimMIM(tiny_encoder(), normalize_target_window_px=window_px)
    images, mask = noise(2, 3, 64, 64) + 3.0, masks()
    plain = model.target(images)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        target, output = model.target(images), model.reconstruct(images, mask)
    assert target.dtype == torch.float32
    assert target.equal(plain)
    assert output.prediction.dtype == torch.bfloat16
    expected = slow_masked_l1(output.prediction, plain, mask)
    assert output.loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("window_px", [-3, 0, 1, 4, 46])
def test_simmim__target_window_must_be_odd(tiny_encoder, window_px):
    with pytest.raises(UserError, match=f"of at least 3, odd or null, got {window_px}"):
        SimMIM(tiny_encoder(), normalize_target_window_px=window_px)


def test_mask_token__of_a_swin_is_normal_and_of_a_vit_cut_off(tiny_encoder):
    torch.manual_seed(0)
    swin = tiny_encoder(img_size_px=16, embed_dim=1024, depths=(1,), num_heads=(1,))
    of_swin = SimMIM(swin).mask_token
    of_vit = SimMIM(beit(img_size_px=16, embed_dim=512, depth=1, num_heads=1)).mask_token
    assert of_swin.std().item() == pytest.approx(0.02, rel=0.1)
    assert of_swin.abs().max() > 0.05
    assert of_vit.std().item() == pytest.approx(0.0108, rel=0.1)
    assert of_vit.abs().max() <= 0.02


@pytest.mark.parametrize(("channel", "y", "x"), [(0, 0, 0), (3, 5, 2), (4, 15, 0), (4, 0, 15)])
def test_decoder__of_a_vit_paints_its_patches(channel, y, x):
    model = SimMIM(beit(img_size_px=(32, 64), embed_dim=8, depth=1, num_heads=1, in_chans=5))
    with torch.no_grad():
        model.decoder[0].weight.zero_()
        model.decoder[0].bias.zero_()
        model.decoder[0].bias[channel * 16 * 16 + y * 16 + x] = 1.0
        painted = model.reconstruct(noise(1, 5, 32, 64), masks((1, 2), batch_size=1)).prediction
    expected = torch.zeros(1, 5, 32, 64)
    expected[0, channel, y::16, x::16] = 1.0
    assert painted.equal(expected)


def model_of(window_px: int | None) -> SimMIM:
    encoder = swin(
        version=1, img_size_px=16, window_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2)
    )
    return SimMIM(encoder, normalize_target_window_px=window_px)


def test_to_image_space__without_local_normalisation_is_the_prediction():
    prediction = torch.randn(2, 3, 16, 16).bfloat16()
    images = model_of(None).to_image_space(prediction, torch.randn(2, 3, 16, 16))
    assert images.equal(prediction.float())


@pytest.mark.parametrize("contrast", [60.0, 0.5])  # of grey levels around 250
def test_to_image_space__inverts_the_local_normalisation(contrast):
    levels = 250 + contrast * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    statistics = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    images = normalize(levels / 255, **statistics)
    perfect = normalize_locally(images, 47)
    found = model_of(47).to_image_space(perfect, images)
    one_level = 1 / 255 / 0.225
    assert (found - images).abs().max() < 0.25 * one_level
    # A prediction of zero is the local mean, not the image.
    assert (model_of(47).to_image_space(0 * perfect, images) - images).abs().max() > 0.5 * one_level


@pytest.mark.parametrize(
    ("first", "second", "share"), [(0.0, 0.5, 2.0), (0.0, 0.0, None), (1e-6, 0.0, None)]
)
def test_evaluate__a_ratio_to_nothing_has_no_value(tiny_encoder, first, second, share):
    """Flat images at the data's mean: the guess has no loss, whatever the model's is."""
    model = SimMIM(tiny_encoder())
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.zero_()
        model.decoder[0].bias.fill_(-0.5)  # twice as far off as the mean, of images that are 0.5
    metrics = model.new_metrics()
    for value in (first, second):
        pixels = torch.full((2, 3, 64, 64), value)
        mask = masks()
        batch = MaskedBatch(pixels, mask, torch.zeros(2), ["a", "b"])
        model.evaluate(metrics, batch, lambda images: images)
    result = metrics["loss_vs_mean"].compute().item()
    assert result != result if share is None else result == pytest.approx(share)
    assert metrics["loss"].compute().item() == pytest.approx(0.75 if second else 0.5, rel=1e-4)


@pytest.mark.parametrize(("side_px", "number"), [(8, 64), (16, 16), (32, 4)])
def test_notes__of_few_mask_patches(tiny_encoder, side_px, number):
    notes = SimMIM(tiny_encoder(), mask_patch_size_px=side_px).notes()
    assert len(notes) == (number < 36)
    assert all(f"an image has {number} mask patches of {side_px} px" in note for note in notes)
