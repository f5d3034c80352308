"""A run with compiled blocks, in C++ and all, and what it leaves behind."""

import pytest
from launched import finish, output

from ssl_swin.safe_pickle import load_checkpoint

pytestmark = pytest.mark.slow
SMALL = (
    "objective=simmim_sparse",
    "model.embed_dim=8",
    "model.depths=[1,1]",
    "model.num_heads=[1,1]",
    "data.prepare.num_train=16",
    "data.prepare.num_val=4",
    "batch_size=4",
    "num_workers=0",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=0",
    "trainer.enable_progress_bar=false",
    "callbacks.probes=null",
    "callbacks.reconstructions=null",
)


@pytest.mark.parametrize(
    "kernels", [(), ("kernels.compile_mode=reduce-overhead", "kernels.bin_multiple=4")]
)
def test_pretrain__compiled_leaves_what_an_uncompiled_run_reads(tmp_path, kernels):
    finish((*SMALL, "compile=true", *kernels), tmp_path, 1)
    run = tmp_path / "runs/pretrain/swin_nano_demo"
    checkpoint = load_checkpoint(run / "checkpoints/last.ckpt")
    assert checkpoint["global_step"] == 4
    assert not [name for name in checkpoint["state_dict"] if "_orig_mod" in name]
    finish((*SMALL, "compile=false", "kernels=reference"), tmp_path, 1)
    assert f"continuing from {run.relative_to(tmp_path)}" in output(tmp_path, 0)
