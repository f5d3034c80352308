"""Two ranks: what is not finite on one of them is left out on both."""

import json
import os

import pytest
import torch
from faulty_runs import state, train, watcher
from launched import CONTEXT, LIMIT_S, _environments

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
FAULTS = [(1, 0, "lonely"), (3, 0, "loss"), (4, 0, "loss"), (5, 0, "gradient")]


def rank_of_two(rank, launched, folder, accumulated):
    from lightning.pytorch.utilities import rank_zero_only

    os.environ.update(launched)
    rank_zero_only.rank = rank
    torch.set_num_threads(1)
    module, trainer = train(
        folder,
        FAULTS,
        callbacks=[watcher(folder)],
        every_n_steps=2,
        rank_of_faults=1,
        devices=2,
        strategy="ddp",
        max_epochs=4,
        accumulate_grad_batches=accumulated,
    )
    found = state(module, trainer) | {"steps": torch.tensor(module.model.after)}
    torch.save(found, folder / f"rank{rank}.pt")


@pytest.mark.parametrize("accumulated", [1, 2])
def test_skipped_steps__one_rank_is_enough(tmp_path, accumulated):
    processes = [
        CONTEXT.Process(target=rank_of_two, args=(rank, launched, tmp_path, accumulated))
        for rank, launched in enumerate(_environments(2))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(LIMIT_S)
    assert [process.exitcode for process in processes] == [0, 0]
    one, other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    statistics = {name for name in one if name.startswith("norm.running")}  # each rank's own
    assert all(torch.equal(one[name], other[name]) for name in one.keys() - statistics)
    assert all(torch.isfinite(value.float()).all() for value in (*one.values(), *other.values()))
    last = 16 // accumulated
    assert one["steps"].tolist() == [n for n in range(1, last + 1) if n not in (2, 4, 5, 6)]
    record = json.loads((tmp_path / "nonfinite/step_0000003.json").read_text())
    assert record["reason"] == "its loss is nan on rank 1"
    batches = [(batch["rank"], batch["loss"] == "nan") for batch in record["batches"]]
    assert batches == [(rank, rank == 1 and n == 0) for rank in (0, 1) for n in range(accumulated)]
    # Three in a row: back to the checkpoint after step 2, whose third step was healthy.
    assert not (tmp_path / "nonfinite/step_0000006.json").exists()
