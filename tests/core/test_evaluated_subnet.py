"""The one value of an evaluated subnet, and its one form in files."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pss_razor.core import ConfigError, Dimension, EvaluatedSubnet, SearchSpace, Subnet

SPACE = SearchSpace(
    [
        Dimension("stem", "channels", (8, 16)),
        Dimension("block", "op", ("a", "b")),
        Dimension("resolution", "resolution", (16, 32)),
    ]
)
OWN = EvaluatedSubnet(
    subnet=Subnet({"stem": 8, "block": "b", "resolution": 32}),
    name="flops_1.5",
    metric="flops",
    target=1.5,
    rank=0,
    score=-0.25,
    resources={"flops": 1.6, "params": 0.5},
    metrics={"accuracy/top1": 90.0, "confusion": [[1, 0], [0, 1]]},
    selection_metrics={"accuracy/top1": 88.0},
)
LARGEST = EvaluatedSubnet(
    subnet=Subnet({"stem": 16, "block": "a", "resolution": 32}), name="largest", metric=None, target=None, resources={}
)


@pytest.mark.parametrize("own", [OWN, LARGEST, dataclasses.replace(OWN, selection_metrics=None, score=None)])
def test_round_trip_through_json(own):
    record = json.loads(json.dumps(own.to_record(SPACE)))
    read = EvaluatedSubnet.from_record(record)
    assert read == own and SPACE.from_record(record) == own.subnet


def test_form_in_files():
    assert OWN.to_record(SPACE) == {
        "name": "flops_1.5",
        "metric": "flops",
        "target": 1.5,
        "rank": 0,
        "score": -0.25,
        "resources": {"flops": 1.6, "params": 0.5},
        "selection_metrics": {"accuracy/top1": 88.0},
        "metrics": {"accuracy/top1": 90.0, "confusion": [[1, 0], [0, 1]]},
        "channels": {"stem": 8},
        "ops": {"block": "b"},
        "resolution": 32,
    }
    assert "metrics" not in LARGEST.to_record(SPACE)


def test_what_follows_from_the_fields():
    assert OWN.pool == ("flops", 1.5) and LARGEST.pool is None
    assert OWN.deciding_metrics == {"accuracy/top1": 88.0} and OWN.measured["accuracy/top1"] == 90
    assert dataclasses.replace(OWN, selection_metrics=None).deciding_metrics["accuracy/top1"] == 90
    with pytest.raises(AssertionError, match="largest was not evaluated"):
        LARGEST.measured  # noqa: B018


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 3),
        ("metric", 3),
        ("target", "1.5"),
        ("target", True),
        ("target", float("inf")),
        ("rank", 0.5),
        ("score", [1]),
        ("resources", None),
        ("resources", {"flops": "1"}),
        ("metrics", [90]),
        ("selection_metrics", 3),
    ],
)
def test_a_field_of_another_kind(key, value):
    with pytest.raises(ConfigError, match=f"{key} of subnet .* it must be"):
        EvaluatedSubnet.from_record({**OWN.to_record(SPACE), key: value})


def test_what_is_no_record():
    with pytest.raises(ConfigError, match="a subnet is 'text' instead of a record"):
        EvaluatedSubnet.from_record("text")
    with pytest.raises(ConfigError, match=r"subnet 'flops_1\.5' has a choice that is none"):
        EvaluatedSubnet.from_record({**OWN.to_record(SPACE), "resolution": [1]})
    with pytest.raises(ConfigError, match="a subnet record has no choice for 'stem'"):
        SPACE.from_record({**OWN.to_record(SPACE), "channels": {}})
