import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader

from ssl_swin.data.loading import shared_memory
from ssl_swin.data.loading.shared_memory import Shared
from ssl_swin.errors import UserError

BATCH = {"pixels": torch.arange(6), "names": ("a", torch.ones(2)), "none": torch.zeros(0)}


def as_it_is(batch: object) -> object:
    return batch


def test_shared__in_the_training_process_nothing_changes():
    batch = Shared(as_it_is)(BATCH)
    assert batch is BATCH
    assert not BATCH["pixels"].is_shared()


def test_shared__in_a_loading_process_every_tensor(monkeypatch):
    monkeypatch.setattr(shared_memory, "get_worker_info", lambda: "a worker")
    batch = {"pixels": torch.arange(6), "nested": [(torch.ones(2),)], "none": torch.zeros(0)}
    Shared(as_it_is)(batch)
    assert batch["pixels"].is_shared() and batch["nested"][0][0].is_shared()
    assert batch["pixels"].tolist() == [0, 1, 2, 3, 4, 5]


def test_shared__through_workers_is_the_same():
    loader = DataLoader(range(5), batch_size=None, num_workers=1, collate_fn=Shared(torch.tensor))
    assert [int(each) for each in loader] == [0, 1, 2, 3, 4]


def test_shared__too_small_a_memory_is_one_message(monkeypatch):
    def full(tensor: torch.Tensor) -> None:
        raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(shared_memory, "get_worker_info", lambda: "a worker")
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(UserError, match=r"No space left on device.*--shm-size.*num_workers"):
        Shared(as_it_is)(BATCH)


LOAD = """
import torch
from torch.utils.data import DataLoader
from ssl_swin.data.loading.shared_memory import Shared
batches = [torch.zeros(100_000) for _ in range(20)]
collate = Shared(lambda batch: batch)
for _ in DataLoader(batches, batch_size=None, num_workers=2, collate_fn=collate):
    pass
"""


@pytest.mark.slow
def test_shared__a_real_shm_of_64_kb_ends_the_process():
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    command = f"{mount} && exec {sys.executable} -c '{LOAD}'"
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "UserError: a loading process cannot hand a batch over" in ended.stderr
