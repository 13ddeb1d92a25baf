import copy
import os
import pickle
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from pss_razor.core import Subnet

CHOICES = {"stem": 32, "stage1": 16, "op": "mbconv", "resolution": 224}


def test_reads_like_a_mapping():
    subnet = Subnet(CHOICES)
    assert dict(subnet) == CHOICES
    assert list(subnet) == list(CHOICES)
    assert len(subnet) == 4
    assert subnet["op"] == "mbconv"
    assert "stage2" not in subnet
    with pytest.raises(KeyError):
        subnet["stage2"]


def test_equality_and_hash_do_not_depend_on_the_order():
    subnets = [Subnet(dict(order)) for order in permutations(CHOICES.items())]
    assert len(set(subnets)) == 1
    assert all(subnet == subnets[0] for subnet in subnets)


@pytest.mark.parametrize("change", [{"stem": 24}, {"resolution": 216}, {"op": "identity"}, {"extra": 1}])
def test_another_choice_is_another_subnet(change):
    assert Subnet(CHOICES) != Subnet({**CHOICES, **change})
    assert len({Subnet(CHOICES), Subnet({**CHOICES, **change})}) == 2


def test_swapped_values_are_another_subnet():
    assert Subnet({"a": 8, "b": 16}) != Subnet({"a": 16, "b": 8})


def test_is_not_equal_to_a_dict():
    assert Subnet(CHOICES) != CHOICES


def test_cannot_be_changed():
    subnet = Subnet(CHOICES)
    with pytest.raises(TypeError):
        subnet["stem"] = 24
    with pytest.raises(TypeError):
        del subnet["stem"]
    with pytest.raises(AttributeError):
        subnet.stem = 24
    assert not hasattr(subnet, "update")
    assert dict(subnet) == CHOICES


def test_is_detached_from_the_mapping_it_was_made_from():
    choices = dict(CHOICES)
    subnet = Subnet(choices)
    choices["stem"] = 8
    assert subnet == Subnet(CHOICES)
    assert subnet["stem"] == 32


def test_refuses_choices_that_cannot_be_hashed():
    with pytest.raises(TypeError):
        Subnet({"stem": [32]})


def test_repr_names_every_choice():
    assert repr(Subnet({"stem": 32, "resolution": 224})) == "Subnet(stem=32, resolution=224)"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda subnet: pickle.loads(pickle.dumps(subnet))])
def test_copies_are_equal(duplicate):
    subnet = Subnet(CHOICES)
    assert duplicate(subnet) == subnet
    assert duplicate(subnet) in {subnet}


def test_a_pickle_is_found_in_another_process():
    program = (
        "import pickle, sys; from pss_razor.core import Subnet; "
        f"sys.exit(0 if pickle.load(sys.stdin.buffer) in {{Subnet({CHOICES!r})}} else 3)"
    )
    for seed in "12":  # at least one differs from this process
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
        result = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(Subnet(CHOICES)), env=environment)
        assert result.returncode == 0
