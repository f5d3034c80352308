import math

import pytest
import torch
from clusters import clusters
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.probing import knn
from ssl_swin.probing.features import Features
from ssl_swin.probing.knn import knn_predict, knn_predict_each
from ssl_swin.probing.scoring import accuracy


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
    monkeypatch.setattr(knn, "CHUNK_SIMILARITIES", chunk_similarities)
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


def test_knn_predict_each__equals_one_k_at_a_time():
    train, queries = clusters(60, seed=0), clusters(20, seed=1).features
    options = {"temperature": 0.3, "num_classes": 3}
    each = knn_predict_each(train, queries, ks=[9, 1, 100], **options)
    assert list(each) == [9, 1, 100]
    for k, scores in each.items():
        torch.testing.assert_close(scores, knn_predict(train, queries, k=k, **options))
    assert not torch.allclose(each[1], each[9])


def test_knn_predict_each__no_k():
    train = clusters(6, seed=0)
    with pytest.raises(UserError, match="at least 1 neighbour, got no k at all"):
        knn_predict_each(train, train.features, ks=[], temperature=0.1, num_classes=3)


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
