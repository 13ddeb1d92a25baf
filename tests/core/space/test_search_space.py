import itertools
import json

import numpy as np
import pytest
from mbv2_by_hand import mbv2_space

from pss_razor.core import ConfigError, Dimension, SearchSpace, Subnet

WIDTH = Dimension("stem", "channels", (24, 32), (0.25, 0.75))
STAGE = Dimension("stage1", "channels", (8, 16, 24))
OP = Dimension("block", "op", ("identity", "mbconv"), (0.9, 0.1))
RATIO = Dimension("expansion", "value", (3, 4.5, 6), (0.5, 0.3, 0.2))
RESOLUTION = Dimension("res", "resolution", (128, 160, 192, 224))


@pytest.fixture
def space():
    return SearchSpace([WIDTH, STAGE, OP, RATIO, RESOLUTION])


def test_dimension_is_uniform_unless_told():
    assert STAGE.probabilities == pytest.approx((1 / 3,) * 3)
    assert WIDTH.probabilities == (0.25, 0.75)


def test_dimension_index():
    assert [STAGE.index(width) for width in (8, 16, 24)] == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"stage1 = 32 is not in the search space; choose from \[8, 16, 24\]"):
        STAGE.index(32)


@pytest.mark.parametrize(
    ("values", "probabilities", "message"),
    [
        ((), None, "'stem' has no choices"),
        ((8, 16, 8), None, "'stem' lists a choice twice"),
        ((8, 16), (1.0,), "'stem': 2 choices need as many positive probabilities"),
        ((8, 16), (0.5, 0.4), "'stem': 2 choices need as many positive probabilities, sum 1"),
    ],
)
def test_dimension_errors(values, probabilities, message):
    with pytest.raises(ConfigError, match=message):
        Dimension("stem", "channels", values, probabilities)


def test_names_must_be_distinct():
    with pytest.raises(ConfigError, match="distinct names"):
        SearchSpace([STAGE, WIDTH, Dimension("stem", "value", (1, 2))])


def test_size_shape_and_ends(space):
    assert len(space) == 5
    assert space.names == ("stem", "stage1", "block", "expansion", "res")
    assert space.shape == (2, 3, 2, 3, 4)
    assert space.size == 144
    assert [space.position(name) for name in space.names] == [0, 1, 2, 3, 4]
    assert dict(space.largest) == {"stem": 32, "stage1": 24, "block": "mbconv", "expansion": 6, "res": 224}
    assert dict(space.smallest) == {"stem": 24, "stage1": 8, "block": "identity", "expansion": 3, "res": 128}


def test_size_does_not_overflow():
    assert SearchSpace([Dimension(f"w{i}", "value", tuple(range(10))) for i in range(30)]).size == 10**30


def test_mbv2_has_41184_subnets():
    space = mbv2_space()
    assert space.shape == (2, 1, 1, 2, 3, 4, 6, 11, 13)
    assert space.size == 41_184
    assert len({space.decode(row) for row in space.enumerate()}) == 41_184


def test_enumerate_is_the_cartesian_product_in_order(space):
    indices = space.enumerate()
    assert indices.dtype == np.int64
    assert indices.tolist() == [list(row) for row in itertools.product(*map(range, (2, 3, 2, 3, 4)))]


def test_decode_and_encode_are_inverse(space):
    indices = space.enumerate()
    subnets = [space.decode(row) for row in indices]
    values = itertools.product((24, 32), (8, 16, 24), ("identity", "mbconv"), (3, 4.5, 6), (128, 160, 192, 224))
    assert [tuple(subnet.values()) for subnet in subnets] == list(values)
    encoded = space.encode(subnets)
    assert encoded.dtype == np.int64
    np.testing.assert_array_equal(encoded, indices)


def test_decode_gives_plain_python_values(space):
    assert {type(value) for value in space.decode(space.enumerate()[-1]).values()} == {int, str}


def test_encode_takes_any_mapping_in_any_order_and_none_at_all(space):
    choices = {"res": 160, "expansion": 4.5, "block": "mbconv", "stage1": 8, "stem": 32}
    assert space.encode([choices, Subnet(choices)]).tolist() == [[1, 0, 1, 1, 1]] * 2
    assert space.encode([]).shape == (0, 5)


@pytest.mark.parametrize("change", [{"stage1": 32}, {"block": "conv"}, {"res": 225}])
def test_encode_names_the_value_outside_the_space(space, change):
    ((name, value),) = change.items()
    with pytest.raises(ConfigError, match=f"{name} = {value!r} is not in the search space"):
        space.encode([space.largest, {**space.largest, **change}])


def test_encode_refuses_other_search_groups(space):
    with pytest.raises(ConfigError, match="the search groups are"):
        space.encode([{**space.largest, "stage2": 8}])
    with pytest.raises(ConfigError, match="the search groups are"):
        space.encode([{name: value for name, value in space.largest.items() if name != "block"}])


def test_probabilities_are_products_over_the_dimensions(space):
    by_hand = [
        (0.25, 0.75)[a] * (1 / 3) * (0.9, 0.1)[c] * (0.5, 0.3, 0.2)[d] * 0.25 for a, _, c, d, _ in space.enumerate()
    ]
    assert space.probabilities(space.enumerate()) == pytest.approx(by_hand, rel=1e-12)
    assert space.probabilities(space.enumerate()).sum() == pytest.approx(1.0, abs=1e-12)
    rows = np.array([[1, 2, 0, 0, 3], [1, 2, 0, 0, 3], [0, 0, 1, 2, 0]])
    assert space.probabilities(rows) == pytest.approx([0.75 / 3 * 0.9 * 0.5 / 4] * 2 + [0.25 / 3 * 0.1 * 0.2 / 4])


def test_draws_follow_the_distribution_and_the_generator(space):
    drawn = space.draw(20_000, np.random.default_rng(0))
    assert drawn.shape == (20_000, 5)
    for column, dimension in zip(drawn.T, space.dimensions, strict=True):
        shares = np.bincount(column, minlength=len(dimension.values)) / len(column)
        assert shares == pytest.approx(dimension.probabilities, abs=0.02)  # 5 standard deviations
    assert np.array_equal(drawn, space.draw(20_000, np.random.default_rng(0)))


class TestEqualCombinations:
    """A dimension that makes no difference has its first choice."""

    @pytest.fixture
    def space(self):
        width = ("channels", (8, 16, 24), None)
        return SearchSpace([
            Dimension("always", *width), Dimension("depth", "value", (1, 2, 3)),
            Dimension("second", *width, used_from=("depth", 2)), Dimension("third", *width, used_from=("depth", 3)),
        ])  # fmt: skip

    def test_canonical_rows(self, space):
        rows = space.enumerate()
        expected = [(a, d, s if d >= 1 else 0, t if d >= 2 else 0) for a, d, s, t in rows.tolist()]
        assert space.canonical(rows).tolist() == [list(row) for row in expected]
        assert len({space.decode(row) for row in rows}) == len(set(expected)) == 3 * (1 + 3 + 9)
        assert space.has_equal_combinations

    def test_records_are_read_as_one_subnet(self, space):
        one = {"channels": {"always": 8, "second": 16, "third": 24}, "values": {"depth": 2}}
        assert dict(space.from_record(one)) == {"always": 8, "depth": 2, "second": 16, "third": 8}

    @pytest.mark.parametrize(("used_from", "message"), [
        (("depht", 2), "used from a value of 'depht'"), (("always", 8), "used from a value of 'always'"),
        (("depth", 4), "depth = 4 is not in the search space"),
    ])  # fmt: skip
    def test_it_needs_another_dimensions_value(self, used_from, message):
        always = Dimension("always", "channels", (8, 16), used_from=used_from)
        with pytest.raises(ConfigError, match=message):
            SearchSpace([always, Dimension("depth", "value", (1, 2, 3))])


def test_record_is_grouped_by_kind(space):
    assert space.to_record(space.largest) == {
        "channels": {"stem": 32, "stage1": 24},
        "ops": {"block": "mbconv"},
        "values": {"expansion": 6},
        "resolution": 224,
    }


def test_records_survive_json(space):
    for row in space.enumerate():
        subnet = space.decode(row)
        record = json.loads(json.dumps(space.to_record(subnet)))
        assert space.from_record({**record, "score": -1.0, "visits": 3}) == subnet


def test_from_record_names_what_is_missing_or_outside(space):
    record = space.to_record(space.smallest)
    for key, name in (("channels", "stem"), ("ops", "block"), ("values", "expansion"), ("resolution", "res")):
        with pytest.raises(ConfigError, match=f"no choice for '{name}'"):
            space.from_record({k: v for k, v in record.items() if k != key})
    with pytest.raises(ConfigError, match="no choice for 'stage1'"):
        space.from_record({**record, "channels": {"stem": 24}})
    with pytest.raises(ConfigError, match="no choice for 'stem'"):
        space.from_record({**record, "channels": [24, 8]})
    with pytest.raises(ConfigError, match="stage1 = 9 is not in the search space"):
        space.from_record({**record, "channels": {"stem": 24, "stage1": 9}})
    with pytest.raises(ConfigError, match="res = 100 is not in the search space"):
        space.from_record({**record, "resolution": 100})


def test_repr_lists_the_choices(space):
    assert "stage1: [8, 16, 24]" in repr(space)


@pytest.mark.parametrize("probabilities", [(1.5, -0.5), (1.0, 0.0), (float("nan"), 0.5)])
def test_dimension_refuses_probabilities_that_are_not_positive(probabilities):
    with pytest.raises(ConfigError):
        Dimension("stem", "channels", (8, 16), probabilities)


def test_dimension_refuses_an_unknown_kind():
    with pytest.raises(ConfigError):
        Dimension("stem", "channel", (8, 16))


def test_space_refuses_two_resolutions():
    with pytest.raises(ConfigError):
        SearchSpace([RESOLUTION, Dimension("res2", "resolution", (32, 64))])


def test_from_record_refuses_a_value_that_cannot_be_hashed(space):
    record = {**space.to_record(space.smallest), "resolution": [128]}
    with pytest.raises(ConfigError):
        space.from_record(record)
