import pytest
import torch

from ssl_swin.weights.formats.key_maps import Rule, rename, same, to_ours, to_theirs

RULES = (
    *same("a.{p}"),
    *rename({"layers.{s+1}.down.{p}": "stage{2s+2}.merge.{p}", "layers.{s}.b.{b}": "s{2s+1}.{b}"}),
    Rule(
        ("x.{s}",),
        ("y.{s}", "z.{s}"),
        lambda tensors: (torch.cat(tensors),),
        lambda tensors: tensors[0].chunk(2),
        "in halves",
    ),
)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("a.weight", "a.weight"),
        ("layers.1.down.bias", "stage2.merge.bias"),
        ("layers.3.down.weight", "stage6.merge.weight"),
        ("layers.10.b.7", "s21.7"),
    ],
)
def test_rules__rename_in_both_directions(ours, theirs):
    tensor = torch.ones(1)
    assert list(to_theirs(RULES, {ours: tensor}).state) == [theirs]
    assert list(to_ours(RULES, {theirs: tensor}).state) == [ours]


@pytest.mark.parametrize(
    "name", ["a.gamma", "a.weight.x", "xa.weight", "stage3.merge.bias", "s2.0", "stage0.merge.bias"]
)
def test_to_ours__does_not_know_other_names(name):
    translation = to_ours(RULES, {name: torch.ones(1)})
    assert (translation.state, translation.unknown) == ({}, (name,))


def test_rules__split_and_join():
    whole = torch.arange(4)
    split = to_theirs(RULES, {"x.2": whole})
    assert {name: part.tolist() for name, part in split.state.items()} == {
        "y.2": [0, 1],
        "z.2": [2, 3],
    }
    assert [(e.name, e.became, e.reason) for e in split.report.renamed] == [
        ("x.2", "y.2, z.2", "in halves")
    ]
    assert to_ours(RULES, split.state).state["x.2"].equal(whole)


def test_to_ours__names_what_is_missing_of_a_group():
    translation = to_ours(RULES, {"z.0": torch.ones(1)})
    assert (translation.state, translation.incomplete) == ({}, ("y.0",))
