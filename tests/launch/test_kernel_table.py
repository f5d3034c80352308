"""From `kernels` and a device to choices, and from the choices to the model of a job."""

import dataclasses
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
import yaml
from torch.optim import AdamW

from ssl_swin import pretrain
from ssl_swin.encoders.kernels import Kernels
from ssl_swin.encoders.windows.attention import WindowAttention
from ssl_swin.errors import UserError
from ssl_swin.launch import kernels
from ssl_swin.launch.composing import composed_for_user
from ssl_swin.launch.kernels import NAMES, kernels_for, read_table, table_entry

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TABLE = [
    {"device": "NVIDIA H100", "attention": "fused"},
    {"device": "cpu", "attention": "products"},
    {"device": "cuda", "attention": "products"},
]
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=16",
    "data.prepare.num_val=4",
    "batch_size=8",
    "num_workers=0",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "schedule.warmup_epochs=0",
    "callbacks=pretrain",
    "callbacks.probes=null",
)


@pytest.mark.parametrize(
    ("device", "card", "entry"),
    [
        (CPU, None, 1),
        (CUDA, "NVIDIA H100 80GB HBM3", 0),
        (CUDA, "NVIDIA A100-SXM4-40GB", 2),
        (torch.device("mps"), None, 1),
    ],
)
def test_table_entry__is_the_first_that_fits(device: torch.device, card: Any, entry: int):
    assert table_entry(TABLE, device, card) is TABLE[entry]


def test_read_table__has_a_known_value_for_every_choice():
    hints = get_type_hints(Kernels)
    for entry in read_table():
        assert set(entry) == {"device", *NAMES}
        assert all(is_known(hints[name], entry[name]) for name in NAMES)
    assert {"cpu", "cuda"} <= {entry["device"] for entry in read_table()}


def is_known(hint: Any, value: Any) -> bool:
    return type(value) is int and value > 0 if hint is int else value in get_args(hint)


def test_kernels_for__takes_what_is_given_before_the_table():
    usual = table_entry(read_table(), CPU)
    settings = {"attention": "fused", "mlp": "auto"}  # of a run before there were others
    found = dataclasses.asdict(kernels_for(settings, CPU))
    assert found == {**{name: usual[name] for name in NAMES}, "attention": "fused"}


def test_kernels_for__takes_flex_attention_on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    assert kernels_for({"attention": "flex"}, CUDA).attention == "flex"
    assert kernels_for({}, CUDA).decoder_attention == "fused"


@pytest.mark.parametrize("job", ["pretrain", "finetune", "segment", "detect"])
def test_configuration__has_the_group(job: str):
    fresh = ["backbone=none", "model=swin_t"]
    given = {"pretrain": [], "finetune": fresh}.get(job, [*fresh, "classes=2", "data.root=x"])
    cfg = composed_for_user(job, [*given, "kernels=reference", "kernels.attention=fused"])
    assert dict(cfg.kernels) == {
        "attention": "fused", "mlp": "keep", "decoder_attention": "products",
        "patch_embedding": "conv", "head": "all", "optimizer": "foreach",
        "compile_mode": "default", "bin_multiple": 1,
    }  # fmt: skip
    assert set(composed_for_user(job, given).kernels.values()) == {"auto"}


@pytest.mark.parametrize(("chosen", "optimizer"), [("products", "fused"), ("fused", "foreach")])
def test_pretrain__trains_with_what_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, optimizer: str
):
    monkeypatch.chdir(tmp_path)
    seen = set()
    stepped = set()
    step = AdamW.step

    def stepping(self: Any, *args: Any, **kwargs: Any) -> Any:
        stepped.update((group["fused"], group["foreach"]) for group in self.param_groups)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(AdamW, "step", stepping)
    forward = WindowAttention.forward

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.add(self.kernel)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(WindowAttention, "forward", watched)
    pretrain([*TINY, f"kernels.attention={chosen}", f"kernels.optimizer={optimizer}"])
    assert seen == {chosen}
    assert stepped == {(optimizer == "fused", optimizer == "foreach")}


def test_pretrain__refuses_what_is_no_choice():
    with pytest.raises(UserError, match=r"kernels\.attention=flex is for CUDA GPUs, .* on cpu,"):
        kernels_for({"attention": "flex"}, CPU)
    with pytest.raises(
        UserError, match=r"kernels\.attention must be products or fused or flex or auto"
    ):
        pretrain([*TINY, "kernels.attention=quick"])


def test_table__is_part_of_the_package():
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert '"ssl_swin.launch" = ["*.yaml"]' in project.read_text()
    assert yaml.safe_load(kernels.TABLE.read_text())
