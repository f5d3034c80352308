"""The comparison of training steps is fair, counts right, and names whoever is missing."""

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from benchmarks.step import __main__ as step
from benchmarks.step import memory, scaling
from benchmarks.step.checkout import import_simmim
from benchmarks.step.comparison import Comparison, Facts, admit
from benchmarks.step.cost import count_flops, kept_bytes, saved_bytes
from benchmarks.step.timing import Product, alternate, ratios, spread
from benchmarks.step.variants import NAMES, Absent, Variant, build
from benchmarks.step.workload import Workload, make_workload, model_names, workload_of
from benchmarks.tables import table
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError

CPU = torch.device("cpu")
DENSE = ["original", "timm", "huggingface", "dense"]

# The interface of the original's model, computed by ours.
STAND_IN = """
from timm.models.layers import trunc_normal_
from torch import int64, nn

from .backbone import backbone
from official_names import to_simmim_name
from ssl_swin.objectives.simmim import SimMIM as Ours


def SwinTransformerForSimMIM(**arguments):
    assert trunc_normal_ and arguments["num_classes"] == 0
    return backbone(**arguments)


class SimMIM(nn.Module):
    def __init__(self, encoder, encoder_stride):
        super().__init__()
        assert encoder_stride == encoder.stride
        self.ours = Ours(encoder)

    def load_state_dict(self, state):
        named = {to_simmim_name(name): tensor for name, tensor in state.items()}
        self.ours.load_state_dict({name: named[name] for name in named if name})

    def forward(self, images, mask):
        assert mask.dtype == int64 and mask.shape[1] * 4 == images.shape[2]
        return self.ours.reconstruct(images, mask.bool()).loss
"""
BACKBONE = """
from ssl_swin.encoders.swin import swin


def backbone(*, img_size, patch_size, in_chans, num_classes, use_checkpoint, **arguments):
    size = {"img_size_px": img_size, "patch_size_px": patch_size, "in_chans": in_chans}
    return swin(version=1, grad_checkpointing=use_checkpoint, **size, **arguments)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that can be imported only without the package's own `__init__`."""
    models = tmp_path / "SimMIM" / "models"
    models.mkdir(parents=True)
    (models / "__init__.py").write_text("raise ImportError('the whole package')")
    (models / "simmim.py").write_text(STAND_IN)
    (models / "backbone.py").write_text(BACKBONE)
    return models.parent


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilation takes longer than all tests here."""

    def refuse(encoder: SwinEncoder) -> None:
        raise UserError("no compiler here")

    monkeypatch.setattr(SwinEncoder, "compile_blocks", refuse)


@pytest.fixture
def workload(tiny_encoder):
    return workload_of(tiny_encoder(), batch_size=2, device=CPU)


def variant_of(name, workload, original=None) -> Variant:
    variant = build(name, workload, original)
    assert isinstance(variant, Variant), variant
    return variant


def loss_of(variant: Variant) -> float:
    return variant.loss(variant.prepare(variant.workload.mask(0))).item()


def tiny_variant() -> Variant:
    """A linear layer of 3 inputs and 5 outputs on 4 "images"; the mask is a number."""
    model = nn.Linear(3, 5, bias=False)
    workload = replace(nano(), images=torch.randn(4, 3))
    optimizer = torch.optim.SGD(model.parameters())
    loss = lambda images, mask: mask * model(images).relu().sum()  # noqa: E731
    return Variant("tiny", model, loss, lambda mask: mask, optimizer, workload)


def nano() -> Workload:
    return make_workload("swin_nano", batch_size=1, device=CPU)


def test_spread__is_median_and_range():
    assert spread([4.0, 1.0, 2.5]) == (2.5, 1.0, 4.0)


def test_ratios__are_medians_of_each_rounds_own():
    seconds = {"theirs": [4.0, 8.0, 6.0], "ours": [2.0, 2.0, 3.0]}  # 2, 4 and 2 times as fast
    assert ratios(seconds, "theirs") == {"theirs": 1.0, "ours": 2.0}
    assert ratios(seconds, "ours") == {"theirs": 0.5, "ours": 1.0}


def test_alternate__takes_turns():
    order = []
    calls = {name: lambda number, name=name: order.append((name, number)) for name in "ABC"}
    seconds = alternate(calls, 2, CPU)
    assert order == [("A", 0), ("B", 0), ("C", 0), ("A", 1), ("B", 1), ("C", 1)]
    assert {name: len(values) for name, values in seconds.items()} == {"A": 2, "B": 2, "C": 2}


def test_product__rate_by_hand():
    assert Product("bf16", CPU).rate([4.0, 2.0, 3.0]) == 10 * 2 * 1024**3 / 2.0


def test_saved_bytes__by_hand():
    images, weight = torch.randn(4, 3), torch.randn(3, 5, requires_grad=True)
    # The product keeps the images (48 bytes), the ReLU its result (80 bytes).
    forward = lambda: (images @ weight).relu().sum()  # noqa: E731
    assert saved_bytes(forward) == 48 + 80
    assert saved_bytes(forward, without=[images.untyped_storage().data_ptr()]) == 80


def test_saved_bytes__counts_a_storage_once_and_whole():
    values = torch.randn(4, 3, requires_grad=True)
    assert saved_bytes(lambda: (values * values + values[0] ** 2).sum()) == 48


def test_kept_bytes__leaves_out_what_is_there_anyway():
    assert kept_bytes(tiny_variant(), torch.ones(())) == 80 + 4  # the ReLU's result, the mask


def test_count_flops__by_hand():
    variant = tiny_variant()
    # Forwards, and backwards for the weight alone, 2 * 4 * 3 * 5 each.
    assert count_flops(variant, torch.ones(())) == 240
    assert variant.model.weight.grad is None


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("version", [1, 2])
def test_loss__is_the_same_for_timm_and_dense(version, precision, tiny_encoder):
    encoder = tiny_encoder(version=version)
    workload = workload_of(encoder, batch_size=2, device=CPU, precision=precision)
    losses = [loss_of(variant_of(name, workload)) for name in ("timm", "dense")]
    assert losses[0] > 0.5
    assert losses[1] == pytest.approx(losses[0], rel=1e-6 if precision == "fp32" else 1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of other packages
def test_build__trains_none_of_the_common_weights(checkout):
    pytest.importorskip("transformers")
    workload = nano()
    before = {name: tensor.clone() for name, tensor in workload.weights.state_dict().items()}
    original = import_simmim(checkout)
    losses = {}
    for name in (*DENSE, *DENSE):  # the second four start after the first have trained
        variant = variant_of(name, workload, original)
        losses.setdefault(name, []).append(loss_of(variant))
        variant.step(variant.prepare(workload.mask(0)))
        assert loss_of(variant) < losses[name][0]
    for name, tensor in workload.weights.state_dict().items():
        assert torch.equal(tensor, before[name])
    expected = losses["dense"][0]
    assert [each for pair in losses.values() for each in pair] == pytest.approx([expected] * 8)


def test_original_groups__decay_what_ours_decay(workload):
    counts = []
    for name in ("timm", "dense"):
        groups = variant_of(name, workload).optimizer.param_groups
        by_decay = {group["weight_decay"]: len(group["params"]) for group in groups}
        counts.append((by_decay[0.05], by_decay[0.0]))
    assert counts[0] == counts[1]
    assert sum(counts[0]) == len(list(workload.weights.parameters()))


def test_sparse__starts_from_the_same_encoder_and_costs_less(tiny_encoder):
    workload = workload_of(tiny_encoder(img_size_px=128), batch_size=2, device=CPU)
    dense, sparse = variant_of("dense", workload), variant_of("sparse", workload)
    theirs = dict(dense.model.encoder.named_parameters())
    for name, parameter in sparse.model.encoder.named_parameters():
        assert torch.equal(parameter, theirs[name])
    mask = workload.mask(0)
    shown = [kept_bytes(each, each.prepare(mask)) for each in (sparse, dense)]
    assert shown[0] < 0.8 * shown[1]
    assert not sparse.is_simmim


def test_sparse__one_mask_for_the_batch_or_one_for_each_image(tiny_encoder):
    workload = workload_of(tiny_encoder(img_size_px=128), batch_size=4, device=CPU)
    mask = workload.mask(0)
    _, own = variant_of("sparse", workload).prepare(mask)
    shared_mask, shared = variant_of("sparse_shared_mask", workload).prepare(mask)
    assert (len(own.visible), len(shared.visible)) == (4, 1)
    assert torch.equal(shared_mask, mask[:1].expand(4, -1, -1))


def test_masks__are_drawn_anew_for_each_step_and_alike_for_all(workload):
    patches = variant_of("timm", workload).prepare(workload.mask(1))
    (units,) = variant_of("dense", workload).prepare(workload.mask(1))
    assert torch.equal(patches[:, ::8, ::8], units)
    assert patches.shape == (2, 16, 16) and units.shape == (2, 2, 2)
    drawn = {tuple(workload.mask(number).flatten().tolist()) for number in range(20)}
    assert len(drawn) > 1
    assert all(sum(mask) == 6 for mask in drawn)  # 3 of 4 units in both images


def test_build__says_why_a_variant_is_absent(tiny_encoder, checkout):
    second = workload_of(tiny_encoder(version=2), batch_size=1, device=CPU)
    assert build("original", second, import_simmim(checkout)) == Absent(
        "original", "the original's checkout has no Swin V2"
    )
    assert "--reference" in build("original", second, None).reason


def test_build__leaves_out_what_others_cannot_represent(workload):
    pytest.importorskip("transformers")
    reason = build("huggingface", workload, None).reason
    assert "windows of 4 tokens in every stage" in reason  # the last map here is smaller


def test_import__takes_only_what_it_needs_and_leaves_no_trace(checkout):
    before = set(sys.modules)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of timm's old module of layers
        module = import_simmim(checkout)
    assert Path(module.__file__) == checkout / "models" / "simmim.py"
    left = {name for name in set(sys.modules) - before if not name.startswith("ssl_swin")}
    assert not {name for name in left if "checkout" in name or name == "timm.models.layers"}
    assert not list(checkout.rglob("__pycache__"))


def test_import__refuses_what_is_no_checkout(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} is not a checkout .* no models/simmim.py"):
        import_simmim(tmp_path)


def test_admit__leaves_out_what_does_not_fit_or_compile(workload):
    def fail(error):
        def forward(images, mask):
            raise error

        return admit(replace(variant_of("timm", workload), forward=forward))

    assert fail(torch.OutOfMemoryError()) == Absent("timm", "out of memory with 2 images")
    assert fail(TorchDynamoException("no\nsuch op")).reason == "does not compile: no such op"


@pytest.mark.slow
def test_step__shows_every_variant(checkout, tmp_path, capsys, no_compiler):
    words = ["--model", "swin_nano", "--batch-size", "2", "--rounds", "1", "--precision", "fp32"]
    words += ["--reference", str(checkout), "--device", "cpu", "--json", str(tmp_path / "raw")]
    step.main(words)
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    shown = {line.split()[1]: line for line in lines if line.startswith("|")}
    missing = [line for line in lines if line.startswith("not in it: ")]
    assert set(NAMES) == (shown.keys() & set(NAMES)) | {line.split()[3][:-1] for line in missing}
    assert "not in it: dense_compiled: no compiler here" in missing
    raw = json.loads((tmp_path / "raw").read_text())
    (result,) = raw["results"]
    assert raw["machine"]["torch"] == torch.__version__
    assert raw["asked"]["reference"] == str(checkout)
    losses = [result["variants"][name]["loss"] for name in ("original", "timm", "dense")]
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)
    for name, facts in result["variants"].items():
        assert len(facts["seconds"]) == 1
        assert facts["flops"] > 1e8 and facts["memory_bytes"] > 2**20
        cells = shown[name].split(" | ")
        assert float(cells[4]) == pytest.approx(
            result["variants"]["original"]["seconds"][0] / facts["seconds"][0], abs=0.006
        )
        assert (cells[7].strip() == "-") is not facts["is_simmim"]


def test_step__refuses_a_wrong_path_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        step.main(["--reference", str(tmp_path)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert str(tmp_path) in error and error.count("\n") == 1


def test_step__refuses_an_unknown_model(capsys):
    with pytest.raises(SystemExit) as stopped:
        step.main(["--model", "vit_b", "--device", "cpu"])
    assert stopped.value.code == 2
    assert "unknown model 'vit_b'; known: swin_b, " in capsys.readouterr().err
    assert "from_backbone" not in model_names()


def test_share__is_of_the_matrix_rate():
    facts = Facts(0.5, True, 6 * 10**9, 2**20, 1.0, 0.002, [2.0, 3.0, 4.0])
    other = Facts(0.25, False, 3 * 10**9, 2**19, 1.0, 0.0, [1.0, 1.0, 1.0])
    compared = Comparison("fp32", 6, {"timm": facts, "sparse": other}, {}, 4e9, [1.0])
    first, second = step.rows(compared)
    assert first[1:] == [
        *("3000.0", "2000.0 to 4000.0", "2.0", "1.00", "1.0"),
        *("0.500000", "0.0e+00", "6.0", "50%", "1.0", "2.0"),
    ]
    assert second[4:9] == ["3.00", "0.5", "0.250000", "-", "3.0"]


def test_largest__by_hand():
    asked = []

    def fits(batch_size: int) -> bool:
        asked.append(batch_size)
        return batch_size <= 100

    assert memory.largest(fits, 16) == 100
    assert asked == [16, 32, 64, 128, 96, 112, 104, 100]
    assert memory.largest(lambda size: size <= 3, 1) == 3
    assert memory.largest(lambda _: False, 16) == 0


@pytest.mark.slow
def test_memory__shows_what_checkpointing_saves(tmp_path, capsys):
    words = ["--batch-size", "2", "--precision", "fp32", "--device", "cpu"]
    words += ["--variants", "original", "timm", "dense", "--json", str(tmp_path / "raw")]
    memory.main(words)
    assert "not in it: original: no checkout" in capsys.readouterr().out
    cells = json.loads((tmp_path / "raw").read_text())["results"][0]["cells"]
    found = {(each["variant"], each["checkpointing"]): each["found"] for each in cells}
    for name in ("timm", "dense"):
        assert 2**20 < found[name, True] < 0.5 * found[name, False]


@pytest.mark.slow
def test_scaling__varies_one_thing(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(scaling.POINTS["cpu"], "batch", (1, 2))
    words = ["--axes", "batch", "--rounds", "1", "--device", "cpu", "--variants", "timm", "dense"]
    scaling.main([*words, "--json", str(tmp_path / "raw")])
    assert "batch, otherwise swin_nano, 4, fp32" in capsys.readouterr().out
    small, large = json.loads((tmp_path / "raw").read_text())["results"]
    assert (small["point"], large["point"], large["batch_size"]) == (1, 2, 2)
    for name in ("timm", "dense"):
        assert large["variants"][name]["flops"] == 2 * small["variants"][name]["flops"]


def test_table__is_markdown():
    assert table(["a", "bcd"], [["long", "1"]]) == "\n".join(
        ["| a    | bcd |", "| ---- | --: |", "| long |   1 |"]
    )
