"""Twenty seeded training steps, fixed for good: which images, pixels and masks, and which losses.

A change that is meant to change nothing leaves `tests/golden/trace.json` as it is. Names and masks
are compared exactly. Losses are compared to 1e-5, since processors round differently, also in
drawing the images; on the kind of machine that wrote the file SSL_SWIN_EXACT_TRACE=1 compares them,
and the pixels, to the bit. To write it anew after a change that is meant to change them:
SSL_SWIN_WRITE_TRACE=1 and -m slow.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from launched import finish

pytestmark = pytest.mark.slow
GOLDEN = Path(__file__).parent / "golden" / "trace.json"
CASES = {
    "dense_v1": ("objective=simmim", "model.version=1"),
    "dense_v2": ("objective=simmim_v2", "model.version=2"),
    "sparse_v1": ("objective=simmim_sparse", "model.version=1"),
    "sparse_v2": ("objective=simmim_sparse", "model.version=2"),
}
SETTINGS = (
    "model.embed_dim=16",
    "model.depths=[2,2,2]",
    "model.num_heads=[1,2,4]",
    "model.drop_path_rate=0.2",
    "data.prepare.num_train=64",
    "data.prepare.num_val=8",
    "data.order.block=4",
    "data.order.pool=32",
    "batch_size=8",
    "num_workers=0",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=3",
    "trainer.max_steps=20",
    "trainer.enable_progress_bar=false",
    "callbacks.probes=null",
    "callbacks.batch_digest.enabled=true",
)
NUM_STEPS = 20


def traced(folder: Path, case: str) -> list[dict[str, Any]]:
    """Trains, and gives a line per step; names and digests of a batch in one hash each."""
    finish((*SETTINGS, *CASES[case]), folder, 1)
    (digests,) = folder.glob("runs/pretrain/*/batch_digest/rank0.jsonl")
    return [
        {
            "names": in_one(line["names"]),
            "pixels": in_one(line["pixels"]),
            "masks": in_one(line["masks"]),
            "loss": line["loss"],
        }
        for line in map(json.loads, digests.read_text().splitlines())
    ]


def in_one(parts: list[str]) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


@pytest.mark.parametrize("case", CASES)
def test_trace__is_what_it_always_was(case: str, tmp_path: Path) -> None:
    trace = traced(tmp_path, case)
    if os.environ.get("SSL_SWIN_WRITE_TRACE"):
        known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(json.dumps(known | {case: trace}, indent=0) + "\n")
    golden = json.loads(GOLDEN.read_text())[case]
    assert len(trace) == len(golden) == NUM_STEPS
    is_exact = bool(os.environ.get("SSL_SWIN_EXACT_TRACE"))
    for column in ("names", "masks", *(["pixels"] if is_exact else [])):
        assert [step[column] for step in trace] == [step[column] for step in golden], column
    losses, expected = ([float.fromhex(step["loss"]) for step in t] for t in (trace, golden))
    tolerance = 0.0 if is_exact else 1e-5
    assert losses == pytest.approx(expected, rel=tolerance, abs=0)
