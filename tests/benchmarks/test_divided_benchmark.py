"""The benchmark of divided memory: what is counted, and what its table says."""

import torch

from benchmarks.step.divided import num_bytes, row, train


def test_num_bytes__counts_weights_gradients_and_moments() -> None:
    model = torch.nn.Linear(7, 3)
    optimizer = train(model)
    states = [value for each in optimizer.state.values() for value in each.values()]
    assert num_bytes(model.parameters()) == 4 * 24
    assert num_bytes(p.grad for p in model.parameters()) == 4 * 24
    assert num_bytes(iter(states)) == 4 * (2 * 24 + 2)  # and a count of steps each


def test_row__takes_the_most_of_any_process_and_tells_the_first_apart() -> None:
    mebibyte = 2**20
    first = {
        "weights": mebibyte,
        "gradients": 2 * mebibyte,
        "AdamW": 4 * mebibyte,
        "save": 0,
        "load": 0,
    }
    other = {**first, "weights": 3 * mebibyte, "save": 8 * mebibyte, "load": 5 * mebibyte}
    cells = row("swin_t", 2, "fsdp", [first, other])
    assert cells == ["swin_t", "2", "fsdp", "3", "2", "4", "9", "0", "8", "0", "5"]
