import math

import pytest
import torch
from torch import Tensor, nn

from ssl_swin import probes
from ssl_swin.errors import UserError
from ssl_swin.features import Features
from ssl_swin.probes import (
    LinearProbe,
    accuracy,
    fit_linear_probe,
    knn_predict,
)


def clusters(num_samples: int, seed: int) -> Features:
    """Three well separated clusters in 8 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % 3
    centres = 4 * torch.eye(3, 8)
    return Features(centres[labels] + torch.randn(num_samples, 8, generator=generator), labels)


def fit(train: Features, **changes: object) -> LinearProbe:
    settings: dict = {
        "num_classes": 3,
        "optimizer": "sgd",
        "base_lr": 1.0,
        "batch_size": 64,
        "epochs": 10,
        "warmup_epochs": 1,
        "weight_decay": 0.0,
        "seed": 0,
        "device": "cpu",
    }
    return fit_linear_probe(train, **(settings | changes))


# linear probe


def test_linear_probe__is_the_mae_head():
    probe = LinearProbe(2000, 10, generator=torch.Generator().manual_seed(0))
    assert {name: tuple(value.shape) for name, value in probe.named_parameters()} == {
        "linear.weight": (10, 2000),
        "linear.bias": (10,),
    }
    assert probe.norm.eps == 1e-6
    assert probe.linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert probe.linear.weight.mean().item() == pytest.approx(0, abs=3e-4)
    assert probe.linear.bias.abs().max() == 0


def test_linear_probe__leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    LinearProbe(8, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "sgd", "base_lr": 1.0},
        # a step moves the weight by a thousandth of its norm times the rate: it takes many
        {"optimizer": "lars", "base_lr": 16.0, "epochs": 100},
    ],
)
def test_fit_linear_probe__separates_what_is_separable(recipe):
    probe = fit(clusters(300, seed=0), **recipe)
    test = clusters(300, seed=1)
    assert not probe.training
    assert accuracy(probe(test.features), test.labels) > 95


def test_fit_linear_probe__is_at_chance_on_shuffled_labels():
    features, labels = clusters(3900, seed=0)
    labels = labels[torch.randperm(3900, generator=torch.Generator().manual_seed(0))]
    losses = []
    probe = fit(
        Features(features[:3000], labels[:3000]),
        base_lr=0.1,
        on_epoch_end=lambda _, loss: losses.append(loss),
    )
    # 900 draws at a chance of a third: a standard deviation of 1.6 percent points
    assert accuracy(probe(features[3000:]), labels[3000:]) == pytest.approx(100 / 3, abs=4)
    assert losses[-1] == pytest.approx(math.log(3), abs=0.01)


def test_fit_linear_probe__one_step_at_a_time_by_brute_force():
    train = clusters(5, seed=0)
    probe = fit(train, batch_size=2, epochs=3, base_lr=16.0, weight_decay=0.1)

    # batches of 2 and 2, the single fifth sample dropped: 2 steps per epoch, 6 in all, and a peak
    # rate of 16 * 2 / 256 after one epoch of warm-up
    generator = torch.Generator().manual_seed(0)
    slow = LinearProbe(8, 3, generator=generator)
    sgd = torch.optim.SGD(slow.parameters(), lr=0.0, momentum=0.9, weight_decay=0.1)
    factors = [0, 1 / 2, 1, 0.5 + math.sqrt(2) / 4, 1 / 2, 0.5 - math.sqrt(2) / 4]
    for epoch in range(3):
        order = torch.randperm(5, generator=generator)
        for half in range(2):
            sgd.param_groups[0]["lr"] = 0.125 * factors[2 * epoch + half]
            batch = order[2 * half : 2 * half + 2]
            loss = nn.functional.cross_entropy(slow(train.features[batch]), train.labels[batch])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    for name, value in slow.state_dict().items():
        torch.testing.assert_close(probe.state_dict()[name], value, msg=name)


def test_fit_linear_probe__same_seed_same_weights():
    train = clusters(50, seed=0)
    first, again, other = fit(train, seed=3), fit(train, seed=3), fit(train, seed=4)
    assert torch.equal(first.linear.weight, again.linear.weight)
    assert not torch.equal(first.linear.weight, other.linear.weight)


def test_fit_linear_probe__reports_the_mean_loss_of_every_epoch():
    reports: list[tuple[int, float]] = []
    fit(
        clusters(300, seed=0),
        epochs=4,
        on_epoch_end=lambda epoch, loss: reports.append((epoch, loss)),
    )
    assert [epoch for epoch, _ in reports] == [1, 2, 3, 4]
    assert 0 < reports[-1][1] < reports[0][1] < math.log(3)


def test_fit_linear_probe__no_warmup():
    test = clusters(90, seed=1)
    probe = fit(clusters(300, seed=0), warmup_epochs=0)
    assert accuracy(probe(test.features), test.labels) > 95


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1}, "2 samples per step or more: batch_size is 1"),
        ({"warmup_epochs": 10}, r"warmup_epochs must lie in \[0, 10\), the epochs; got 10"),
        ({"warmup_epochs": -1}, "got -1"),
        ({"epochs": 0, "warmup_epochs": 0}, r"\[0, 0\)"),
        ({"optimizer": "adam"}, "unknown probe optimizer 'adam': use 'sgd' or 'lars'"),
        ({"num_classes": 2}, "label 2 is not a class: num_classes is 2"),
    ],
)
def test_fit_linear_probe__errors(changes, message):
    with pytest.raises(UserError, match=message):
        fit(clusters(12, seed=0), **changes)


def test_fit_linear_probe__one_sample():
    with pytest.raises(UserError, match="there are 1 samples to train on"):
        fit(clusters(1, seed=0))


# kNN


def test_knn_predict__temperature_weights_by_hand():
    # at an angle of 0, 60 and 90 degrees to the query, so similarities 1, 1/2 and 0
    bank = torch.tensor([[3.0, 0.0], [0.5, math.sqrt(0.75)], [0.0, 2.0]])
    train = Features(bank, torch.tensor([0, 1, 1]))
    query = torch.tensor([[5.0, 0.0]])

    weights = [math.exp(1 / 0.5), math.exp(0.5 / 0.5), math.exp(0)]
    expected = torch.tensor([[weights[0], weights[1] + weights[2], 0]]) / sum(weights)
    scores = knn_predict(train, query, k=3, temperature=0.5, num_classes=3)
    torch.testing.assert_close(scores, expected)

    # two far votes for class 1 outweigh one near vote when hot, not when cold
    hot = knn_predict(train, query, k=3, temperature=100.0, num_classes=2)
    cold = knn_predict(train, query, k=3, temperature=0.01, num_classes=2)
    assert (hot.argmax().item(), cold.argmax().item()) == (1, 0)


def brute_force_knn(train: Features, query: Tensor, k: int, temperature: float) -> list[float]:
    similarities = [
        (sum(a * b for a, b in zip(query, row, strict=True)) / (row.norm() * query.norm())).item()
        for row in train.features
    ]
    votes = [0.0, 0.0, 0.0]
    for index in sorted(range(len(similarities)), key=lambda i: -similarities[i])[:k]:
        votes[train.labels[index]] += math.exp(similarities[index] / temperature)
    return [vote / sum(votes) for vote in votes]


@pytest.mark.parametrize("chunk_similarities", [2**26, 130, 1])
def test_knn_predict__against_a_loop(monkeypatch, chunk_similarities):
    monkeypatch.setattr(probes, "KNN_CHUNK_SIMILARITIES", chunk_similarities)
    generator = torch.Generator().manual_seed(0)
    train = Features(torch.randn(60, 4, generator=generator), torch.arange(60) % 3)
    queries = torch.randn(11, 4, generator=generator)

    scores = knn_predict(train, queries, k=7, temperature=0.2, num_classes=3)
    expected = [brute_force_knn(train, query, k=7, temperature=0.2) for query in queries]
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_knn_predict__more_neighbours_than_samples():
    train, queries = clusters(12, seed=0), clusters(5, seed=1).features
    every, more = (
        knn_predict(train, queries, k=k, temperature=0.1, num_classes=3) for k in (12, 1000)
    )
    assert torch.equal(every, more)
    assert every.sum(dim=1).tolist() == pytest.approx([1.0] * 5)


def test_knn_predict__tiny_temperature_stays_finite():
    train = clusters(12, seed=0)
    scores = knn_predict(train, train.features, k=5, temperature=1e-4, num_classes=3)
    assert accuracy(scores, train.labels) == 100.0  # each is its own nearest neighbour


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, "at least 1 neighbour, got k=0"),
        ({"temperature": 0.0}, r"temperature must be above 0, got 0\.0"),
        ({"num_classes": 2}, "label 2 is not a class"),
    ],
)
def test_knn_predict__errors(changes, message):
    train = clusters(6, seed=0)
    with pytest.raises(UserError, match=message):
        knn_predict(
            train, train.features, **({"k": 1, "temperature": 0.1, "num_classes": 3} | changes)
        )


# scores


def test_accuracy__by_hand():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert accuracy(scores, torch.tensor([1, 0, 0, 0])) == 75.0
