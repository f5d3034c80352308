"""The same weights in the others' own model classes give the same outputs, both ways."""

import pytest
import torch
from saved_backbones import MEAN, STD, saved

from benchmarks.data.formats import TINY, TINY_SIZES, Target, measure, targets
from ssl_swin.encoders.swin import swin
from ssl_swin.weights.formats.exporting import export_weights
from ssl_swin.weights.formats.importing import import_weights

transformers = pytest.importorskip("transformers")


@pytest.mark.filterwarnings("ignore")  # of other packages
@pytest.mark.parametrize("target", list(targets()), ids=lambda t: f"{t.format_name}-{t.model}")
def test_outputs__are_equal_in_both_directions(target: Target, tmp_path):
    encoder = swin(version=target.version, **TINY, **TINY_SIZES)
    differences = list(measure(target, encoder, tmp_path))
    assert [each.direction for each in differences] == ["out", "in"]
    atol = 1e-5
    for each in differences:
        assert each.scale > 1
        assert each.largest <= atol


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("version", "name"), [(1, "SwinForMaskedImageModeling"), (2, "Swinv2ForMaskedImageModeling")]
)
def test_huggingface__gives_the_same_loss(version, name, tiny_encoder, tmp_path):
    encoder = tiny_encoder(version=version, **TINY_SIZES)
    export_weights(saved(encoder, tmp_path / "ours"), tmp_path / "hf", to="huggingface")
    theirs = getattr(transformers, name).from_pretrained(tmp_path / "hf").eval()
    ours = import_weights(tmp_path / "hf")[0].simmim.eval()
    images, mask = torch.randn(2, 3, 128, 128), torch.rand(2, 32, 32) < 0.4
    with torch.no_grad():
        expected = ours.reconstruct(images, mask).loss
        found = theirs(images, bool_masked_pos=mask.flatten(1)).loss
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_huggingface__reads_our_folder_as_its_own(backbone, tmp_path):
    export_weights(backbone, tmp_path / "hf", to="huggingface")
    model = transformers.AutoModelForMaskedImageModeling.from_pretrained(tmp_path / "hf")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    assert type(model).__name__ == "SwinForMaskedImageModeling"
    assert list(processor.image_mean) == list(MEAN) and list(processor.image_std) == list(STD)
