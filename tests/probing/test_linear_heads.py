import math
from typing import Any

import pytest
import torch
from clusters import RECIPE, clusters
from torch import nn

from ssl_swin.errors import UserError
from ssl_swin.probing import fitting, heads
from ssl_swin.probing.features import Features
from ssl_swin.probing.fitting import fit_linear_heads, head_optimizer
from ssl_swin.probing.heads import LinearHeads, head_accuracies, head_predictions
from ssl_swin.probing.scoring import accuracy


def fit(train: Features, **changes: Any) -> LinearHeads:
    settings = {**RECIPE, "num_classes": 3, "base_lrs": [1.0], "device": "cpu"}
    return fit_linear_heads(train, **(settings | changes))


def test_linear_heads__are_the_mae_head_several_times():
    probe = LinearHeads(2000, 10, 3, generator=torch.Generator().manual_seed(0))
    assert [tuple(value.shape) for value in probe.parameters()] == 3 * [(10, 2000)] + 3 * [(10,)]
    assert (probe.norm.eps, probe.norm.affine) == (1e-6, False)
    for weight, bias in zip(probe.weights, probe.biases, strict=True):
        assert weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert weight.mean().item() == pytest.approx(0, abs=3e-4)
        assert torch.equal(weight, probe.weights[0])
        assert bias.abs().max() == 0


def test_linear_heads__leave_the_global_generator_alone():
    state = torch.get_rng_state()
    LinearHeads(8, 3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())


def test_linear_heads__scores_by_hand():
    probe = LinearHeads(2, 3, 2, generator=torch.Generator()).eval()
    probe.norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    probe.norm.running_var.copy_(torch.tensor([4.0, 16.0]) - 1e-6)
    with torch.no_grad():
        for index, scale in enumerate((1.0, 10.0)):
            probe.weights[index].copy_(scale * torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
            probe.biases[index].fill_(index)
    scores = probe(torch.tensor([[3.0, 10.0]]))  # normalised: (1, 2)
    expected = torch.tensor([[[1.0, 2.0, 3.0], [11.0, 21.0, 31.0]]])
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(probe.head(1)(torch.tensor([[3.0, 10.0]])), expected[:, 1:])


@pytest.mark.parametrize(("optimizer", "weight_decay"), [("sgd", 1e-3), ("lars", 0.0)])
def test_fit_linear_heads__each_equals_itself_trained_alone(optimizer, weight_decay):
    train = clusters(70, seed=0)
    rates = [0.01, 1.0, 30.0]
    options = {"optimizer": optimizer, "weight_decay": weight_decay, "batch_size": 16, "epochs": 4}
    together = fit(train, base_lrs=rates, **options)
    for index, rate in enumerate(rates):
        alone = fit(train, base_lrs=[rate], **options)
        torch.testing.assert_close(together.weights[index], alone.weights[0])
        torch.testing.assert_close(together.biases[index], alone.biases[0])
    assert not torch.allclose(together.weights[0], together.weights[2])


def test_fit_linear_heads__one_that_diverges_leaves_the_others_alone():
    train = clusters(70, seed=0)
    unchecked = fit_linear_heads.__wrapped__  # no such rate can be given
    together = unchecked(
        train, **{**RECIPE, "num_classes": 3, "device": "cpu"}, base_lrs=[1.0, 3e38]
    )
    torch.testing.assert_close(together.weights[0], fit(train).weights[0])
    assert not together.weights[1].isfinite().all()
    right, wrong = head_accuracies(together, train, "cpu")
    assert right > 95 and wrong == 0


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "sgd", "base_lrs": [1.0]},
        # a step moves the weight by a thousandth of its norm times the rate: it takes many
        {"optimizer": "lars", "base_lrs": [16.0], "epochs": 100},
    ],
)
def test_fit_linear_heads__separates_what_is_separable(recipe):
    probe = fit(clusters(300, seed=0), **recipe)
    assert not probe.training
    assert head_accuracies(probe, clusters(300, seed=1), "cpu")[0] > 95


def test_fit_linear_heads__is_at_chance_on_shuffled_labels():
    features, labels = clusters(3900, seed=0)
    labels = labels[torch.randperm(3900, generator=torch.Generator().manual_seed(0))]
    losses = []
    probe = fit(
        Features(features[:3000], labels[:3000]),
        base_lrs=[0.1],
        on_epoch_end=lambda _, by_head: losses.append(by_head[0]),
    )
    # 900 draws at a chance of a third: a standard deviation of 1.6 percent points
    held_out = Features(features[3000:], labels[3000:])
    assert head_accuracies(probe, held_out, "cpu")[0] == pytest.approx(100 / 3, abs=4)
    assert losses[-1] == pytest.approx(math.log(3), abs=0.01)


class PlainLars:
    """LARS as the paper and MAE's code have it, for a matrix and a bias."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.buffers = [torch.zeros_like(parameter) for parameter in parameters]
        self.param_groups = [{"lr": 0.0}]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for parameter, buffer in zip(self.parameters, self.buffers, strict=True):
            step = parameter.grad
            if parameter.ndim > 1:
                step = 0.001 * parameter.norm() / step.norm() * step
            buffer.copy_(0.9 * buffer + step)
            parameter -= self.param_groups[0]["lr"] * buffer


@pytest.mark.parametrize(("optimizer", "weight_decay"), [("sgd", 0.1), ("lars", 0.0)])
def test_fit_linear_heads__one_step_at_a_time_by_brute_force(optimizer, weight_decay):
    train = clusters(5, seed=0)
    options = {"optimizer": optimizer, "weight_decay": weight_decay, "base_lrs": [16.0]}
    probe = fit(train, batch_size=2, epochs=3, **options)

    # batches of 2 and 2, the fifth sample dropped: 2 steps per epoch, 6 in all, and a peak rate of
    # 16 * 2 / 256 after one epoch of warm-up
    slow = nn.Sequential(nn.BatchNorm1d(8, affine=False, eps=1e-6), nn.Linear(8, 3))
    generator = torch.Generator().manual_seed(0)
    nn.init.trunc_normal_(slow[1].weight, std=0.01, generator=generator)
    nn.init.zeros_(slow[1].bias)
    updates = {
        "sgd": torch.optim.SGD(slow.parameters(), lr=0.0, momentum=0.9, weight_decay=0.1),
        "lars": PlainLars(list(slow.parameters())),
    }[optimizer]
    factors = [0, 1 / 2, 1, 0.5 + math.sqrt(2) / 4, 1 / 2, 0.5 - math.sqrt(2) / 4]
    generator.manual_seed(0)
    for epoch in range(3):
        order = torch.randperm(5, generator=generator)
        for half in range(2):
            updates.param_groups[0]["lr"] = 0.125 * factors[2 * epoch + half]
            batch = order[2 * half : 2 * half + 2]
            loss = nn.functional.cross_entropy(slow(train.features[batch]), train.labels[batch])
            updates.zero_grad()
            loss.backward()
            updates.step()
    torch.testing.assert_close(probe.weights[0], slow[1].weight)
    torch.testing.assert_close(probe.biases[0], slow[1].bias)
    torch.testing.assert_close(probe.norm.running_mean, slow[0].running_mean)
    torch.testing.assert_close(probe.norm.running_var, slow[0].running_var)


def test_head_optimizer__two_steps_of_lars_by_hand():
    heads = LinearHeads(2, 1, 1, generator=torch.Generator()).double()
    (weight,), (bias,) = heads.weights, heads.biases
    weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    bias.data.fill_(3.0)
    updates = head_optimizer("lars", heads, [10.0], momentum=0.5, weight_decay=0.0)

    # |p| = 5, |g| = 2: scaled by 0.001 * 5 / 2, so m = (0, 0.005) and p -= 10 m; a bias is not
    weight.grad, bias.grad = torch.tensor([[0.0, 2.0]]).double(), torch.tensor([0.1]).double()
    updates.step()
    assert weight[0].tolist() == pytest.approx([3.0, 3.95])
    assert bias.tolist() == pytest.approx([2.0])

    # |p|^2 = 9 + 15.6025 and |g| = 1: m = 0.5 * (0, 0.005) + (0.001 |p|, 0)
    weight.grad, bias.grad = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([0.0]).double()
    updates.step()
    assert weight[0].tolist() == pytest.approx([3.0 - 0.01 * math.sqrt(24.6025), 3.925])
    assert bias.tolist() == pytest.approx([1.5])


def test_head_optimizer__lars_leaves_the_gradient_as_it_is_where_a_norm_is_zero():
    heads = LinearHeads(2, 1, 1, generator=torch.Generator())
    (weight,), (bias,) = heads.weights, heads.biases
    weight.data.zero_()
    updates = head_optimizer("lars", heads, [0.5], momentum=0.0, weight_decay=0.0)
    weight.grad, bias.grad = torch.tensor([[2.0, 0.0]]), torch.tensor([0.0])
    updates.step()
    assert weight.tolist() == [[-1.0, 0.0]]
    weight.grad = torch.tensor([[0.0, 0.0]])
    updates.step()
    assert weight.tolist() == [[-1.0, 0.0]]


def test_fit_linear_heads__a_single_partial_batch_is_used():
    probe = fit(clusters(30, seed=0), batch_size=64, epochs=40, base_lrs=[16.0])
    assert head_accuracies(probe, clusters(90, seed=1), "cpu")[0] > 90


def test_fit_linear_heads__same_seed_same_weights():
    train = clusters(50, seed=0)
    first, again, other = fit(train, seed=3), fit(train, seed=3), fit(train, seed=4)
    assert torch.equal(first.weights[0], again.weights[0])
    assert not torch.equal(first.weights[0], other.weights[0])


def test_fit_linear_heads__float16_features_are_trained_on_as_float32():
    train = clusters(70, seed=0)
    halved = Features(train.features.half(), train.labels)
    as_floats = Features(train.features.half().float(), train.labels)
    assert torch.equal(fit(halved).weights[0], fit(as_floats).weights[0])


def test_fit_linear_heads__reports_the_mean_loss_of_every_epoch():
    reports: list[tuple[int, list[float]]] = []
    fit(
        clusters(300, seed=0),
        epochs=4,
        base_lrs=[1.0, 1e-9],
        on_epoch_end=lambda epoch, losses: reports.append((epoch, losses)),
    )
    assert [epoch for epoch, _ in reports] == [1, 2, 3, 4]
    (first, still), (last, unmoved) = reports[0][1], reports[-1][1]
    assert 0 < last < first < math.log(3) + 0.1
    assert still == pytest.approx(unmoved, rel=0.01) == pytest.approx(math.log(3), rel=0.05)


def test_fit_linear_heads__no_warmup():
    probe = fit(clusters(300, seed=0), warmup_epochs=0)
    assert head_accuracies(probe, clusters(90, seed=1), "cpu")[0] > 95


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1}, "batch_size must be a whole number of at least 2, got 1"),
        ({"warmup_epochs": 10}, r"warmup_epochs must lie in \[0, 10\), the epochs; got 10"),
        ({"warmup_epochs": -1}, "got -1"),
        ({"epochs": 0, "warmup_epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"optimizer": "adam"}, "optimizer must be sgd or lars, got 'adam'"),
        (
            {"optimizer": "lars", "weight_decay": 0.05},
            "lars probes without weight decay, got weight_decay=0.05: use weight_decay=0, or",
        ),
        ({"weight_decay": -0.1}, "weight_decay must be a number of at least 0, got -0.1"),
        ({"momentum": 1.0}, r"momentum must be a number in \[0, 1\), got 1.0"),
        ({"optimizer": "lars", "momentum": -0.5}, r"a number in \[0, 1\), got -0.5"),
        ({"num_classes": 2}, "label 2 is not a class: num_classes is 2"),
        (
            {"base_lrs": []},
            r"base_lrs must be a list of numbers in \(0, 1e\+06\], not empty, each once, got \[\]",
        ),
        ({"base_lrs": [0.1, 0.0]}, r"got \[0.1, 0.0\]"),
    ],
)
def test_fit_linear_heads__errors(changes, message):
    with pytest.raises(UserError, match=message):
        fit(clusters(12, seed=0), **changes)


def test_fit_linear_heads__one_sample():
    with pytest.raises(UserError, match="needs 2 samples or more to train on, there are 1"):
        fit(clusters(1, seed=0))


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.0, fitting.RESIDENT_SHARE])
def test_fit_linear_heads__on_a_gpu_equals_the_cpu_wherever_the_features_lie(monkeypatch, share):
    monkeypatch.setattr(fitting, "RESIDENT_SHARE", share)
    train = clusters(300, seed=0)
    on_cpu = fit(train, base_lrs=[0.1, 1.0])
    on_gpu = fit(train, base_lrs=[0.1, 1.0], device="cuda").cpu()
    for ours, theirs in zip(on_gpu.parameters(), on_cpu.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("chunk_scores", [2**26, 50, 1])
def test_head_accuracies__against_whole_scores(monkeypatch, chunk_scores):
    monkeypatch.setattr(heads, "CHUNK_SCORES", chunk_scores)
    probe = fit(clusters(60, seed=0), base_lrs=[0.001, 0.01, 1.0])
    test = clusters(31, seed=1)
    scores = probe(test.features)
    expected = [accuracy(scores[:, index], test.labels) for index in range(3)]
    assert head_accuracies(probe, test, "cpu") == pytest.approx(expected)
    assert len(set(expected)) > 1
    predicted = head_predictions(probe.head(2), test.features, "cpu")
    assert predicted.tolist() == scores[:, 2].argmax(dim=1).tolist()
