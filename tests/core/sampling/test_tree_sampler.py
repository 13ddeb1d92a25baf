"""The tree sampler against enumeration, on spaces of every kind that both can do."""

from itertools import combinations

import numpy as np
import pytest

from pss_razor.core import (
    AdditiveCost,
    ChainSampler,
    ConfigError,
    Constraint,
    CostTerm,
    Dimension,
    EnumeratedSampler,
    ProductTerm,
    SearchSpace,
    TreeSampler,
    UnreachableTargetError,
    build_conditional_sampler,
)
from pss_razor.core.sampling import binned_sampler, tree_sampler
from pss_razor.core.sampling.bag_tree import ROOT, BagTree, Derived

# Which groups share a table, and how many values each has.
NETWORKS = {
    "chain": ("ab bc cd de", dict(a=3, b=4, c=2, d=5, e=3)),
    "star": ("ab ac ad ae", dict(a=4, b=3, c=5, d=2, e=3)),
    "residual": ("wa ab bw wc cd dw wv ve", dict(w=3, a=2, b=3, c=2, d=3, v=2, e=3)),
    "depth": ("na nab nbc nd dc", dict(n=3, a=3, b=3, c=4, d=2)),
    "concatenation": ("ab ac ad ae bc bd be cd ce de", dict(a=3, b=4, c=3, d=4, e=2)),
    "cycle": ("ab bc cd de ef fa", dict(a=3, b=2, c=3, d=2, e=3, f=3)),
    "components": ("ab bc de", dict(a=4, b=3, c=3, d=5, e=4, f=2)),
}


def tree_cost(network, resolutions=1, seed=0, kind="reals", scale=1.0):
    """Random tables of a network, uneven probabilities, a group of one value, constants of either sign.

    Of the kind "whole", tables hold whole numbers, so that many subnets cost the same.
    """
    generator = np.random.default_rng(seed)

    def dimension(name, kind, n):
        probabilities = generator.dirichlet(np.full(n, 3.0))
        return Dimension(name, kind, tuple(range(n)), tuple(probabilities / probabilities.sum()))

    tables, sizes = NETWORKS[network]
    dimensions = [dimension(name, "value" if name == "n" else "channels", n) for name, n in sizes.items()]
    dimensions.insert(1, Dimension("fixed", "channels", (8,)))
    if resolutions > 1:
        dimensions.append(dimension("resolution", "resolution", resolutions))
    space = SearchSpace(dimensions)
    size_of = dict(zip(space.names, space.shape, strict=True))
    terms = [CostTerm((), np.array(-0.75)), CostTerm(("fixed",), np.array([1.25]))]
    for names in [*map(tuple, tables.split()), *((name,) for name in sizes)]:
        if resolutions > 1:
            names = (*names, "resolution")
        table = generator.random([size_of[name] for name in names])
        terms.append(CostTerm(names, table if kind == "reals" else np.rint(6 * table)))
    return AdditiveCost(space, terms, scale)


def targets_between(cost, count):
    """So many targets from the smallest to the largest resource."""
    resources = cost(cost.space.enumerate())
    return Constraint.spread("latency", count, resources.min(), resources.max())


def is_drawn_from(draws, cost, constraint, target):
    """Whether draws (N, D) may come from the space's distribution conditional on a target.

    The chi-square statistic of n cells has mean n - 1 and variance 2 (n - 1); six deviations are allowed. Subnets
    expected less than five times are one cell.
    """
    space = cost.space
    indices = space.enumerate()
    inside = constraint.nearest_target_index(cost(indices)) == constraint.targets.index(target)
    wanted = np.where(inside, space.probabilities(indices), 0.0)
    wanted *= len(draws) / wanted.sum()
    observed = np.bincount(np.ravel_multi_index(draws.T, space.shape), minlength=space.size)
    if observed[~inside].any():
        return False
    common = wanted >= 5
    observed, wanted = (np.append(cells[common], cells[~common].sum()) for cells in (observed, wanted))
    kept = wanted > 1e-9
    statistic = ((observed - wanted)[kept] ** 2 / wanted[kept]).sum()
    freedom = kept.sum() - 1
    return abs(statistic - freedom) <= 6 * np.sqrt(2 * freedom) + 6


def dense_cost(layers=4, resolutions=1, seed=0, scale=1.0):
    """A dense block: each layer's input is everything before it joined, seven channels that are not searched among it.

    A depth switches the last layer off.

    Also given is what it costs by hand, of rows of indices (N, D).
    """
    generator = np.random.default_rng(seed)
    widths = {"stem": np.array([4, 6, 9]), "fixed": np.array([7])}
    for i in range(layers):
        widths |= {f"inner{i}": np.array([2, 3, 5]), f"out{i}": np.array([1, 3])}
    dimensions = [
        Dimension(name, "channels", tuple(values.tolist()), tuple(generator.dirichlet(np.full(len(values), 5.0))))
        for name, values in widths.items()
    ]
    dimensions.append(Dimension("depth", "value", (0, 1)))
    areas = (1 + np.arange(resolutions)) ** 2
    if resolutions > 1:
        dimensions.append(Dimension("resolution", "resolution", tuple(range(resolutions))))
    space = SearchSpace(dimensions)
    outer = ("resolution",) if resolutions > 1 else ()

    def at_resolution(table):
        return np.multiply.outer(table, areas) if resolutions > 1 else table

    terms, joined = [], ["stem", "fixed"]
    for i in range(layers):
        inner, out, runs = f"inner{i}", f"out{i}", () if i < layers - 1 else ("depth",)
        switch = np.array([0, 1]) if runs else np.array(1)
        factor = at_resolution(np.multiply.outer(widths[inner], switch))
        terms.append(ProductTerm(tuple((n, widths[n]) for n in joined), CostTerm((inner, *runs, *outer), factor)))
        table = 3 * np.multiply.outer(np.multiply.outer(widths[inner], widths[out]), switch)
        terms.append(CostTerm((inner, out, *runs, *outer), at_resolution(table)))
        joined.append(out)

    def by_hand(indices):
        chosen = dict(zip(space.names, indices.T, strict=True))
        size = {name: values[chosen[name]] for name, values in widths.items()}
        total, total_width = np.zeros(len(indices)), size["stem"] + 7.0
        for i in range(layers):
            runs = chosen["depth"] if i == layers - 1 else 1
            total += runs * size[f"inner{i}"] * (total_width + 3 * size[f"out{i}"])
            total_width = total_width + size[f"out{i}"]
        return scale * total * (areas[chosen["resolution"]] if resolutions > 1 else 1)

    return AdditiveCost(space, terms, scale), by_hand


@pytest.fixture
def only_sums(monkeypatch):
    """Costs are written with sums of widths even where they would be as small without."""
    layouts = TreeSampler._layouts
    monkeypatch.setattr(TreeSampler, "_layouts", lambda sampler: [*layouts(sampler)][-1:])


@pytest.fixture
def no_lists(monkeypatch):
    """Targets are drawn from by the tree however few subnets they have."""
    monkeypatch.setattr(binned_sampler, "FEW", 1)
    monkeypatch.setattr(tree_sampler, "FEW", 1)


@pytest.mark.parametrize("kind", ["reals", "whole"])
@pytest.mark.parametrize("resolutions", [1, 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_target_has_the_exact_conditional_distribution(network, resolutions, kind, no_lists):
    cost = tree_cost(network, resolutions, kind=kind)
    constraint = targets_between(cost, 6)
    sampler, generator = TreeSampler(cost, constraint), np.random.default_rng(0)
    enumerated = EnumeratedSampler(cost, constraint)
    assert sampler.reachable_targets == enumerated.reachable_targets
    assert sampler.resource_range == pytest.approx(enumerated.resource_range, rel=1e-12)
    assert len(sampler._listed) <= 2
    for target in sampler.reachable_targets:
        assert 1 <= sampler.count(target) <= enumerated.count(target)
        draws, resources = sampler.draw_many(target, 20_000, generator)
        np.testing.assert_allclose(resources, cost(draws), rtol=1e-12)
        assert is_drawn_from(draws, cost, constraint, target), target


@pytest.mark.parametrize("scale", [1e-6, 1.0])
@pytest.mark.parametrize("kind", ["reals", "whole"])
@pytest.mark.parametrize("network", NETWORKS)
def test_counts_are_those_of_enumeration(network, kind, scale):
    """Steps so small that many targets have no subnet, or one."""
    cost = tree_cost(network, 2, seed=1, kind=kind, scale=scale)
    low, high = EnumeratedSampler(cost, Constraint("latency", 0, 1e6, 1e6)).resource_range
    step = (high - low) / 150 if kind == "reals" else scale
    # Whole numbers are right on the edges of targets at halves, where they go to the even one.
    first = low - 3 * step if kind == "reals" else low - 2.5 * step
    constraint = Constraint("latency", first, first + 160 * step, step)
    sampler, enumerated = TreeSampler(cost, constraint), EnumeratedSampler(cost, constraint)
    counts = [enumerated.count(target) for target in constraint.targets]
    assert [sampler.count(target) for target in constraint.targets] == counts
    assert 0 in counts
    for target in sampler.reachable_targets[::15]:
        draws, _ = sampler.draw_many(target, 200, np.random.default_rng(0))
        assert (constraint.nearest_target_index(cost(draws)) == constraint.targets.index(target)).all()
    with pytest.raises(UnreachableTargetError, match="no subnet has latency"):
        sampler.draw_many(sampler.unreachable_targets[0], 1, np.random.default_rng(0))


class TestSums:
    """Concatenations: the sum of their widths is a variable."""

    @pytest.mark.parametrize("resolutions", [1, 3])
    def test_every_target_has_the_exact_conditional_distribution(self, resolutions, only_sums, no_lists):
        cost, by_hand = dense_cost(4, resolutions)
        np.testing.assert_allclose(cost(cost.space.enumerate()), by_hand(cost.space.enumerate()), rtol=1e-12)
        constraint = targets_between(cost, 5)
        sampler, generator = TreeSampler(cost, constraint), np.random.default_rng(0)
        assert len(sampler._layout.tree.derived) == 3
        enumerated = EnumeratedSampler(cost, constraint)
        assert sampler.reachable_targets == enumerated.reachable_targets
        assert sampler.resource_range == pytest.approx(enumerated.resource_range, rel=1e-12)
        assert len(sampler._listed) <= 1
        for target in sampler.reachable_targets:
            assert 1 <= sampler.count(target) <= enumerated.count(target)
            draws, resources = sampler.draw_many(target, 30_000, generator)
            np.testing.assert_allclose(resources, by_hand(draws), rtol=1e-12)
            assert is_drawn_from(draws, cost, constraint, target), target

    def test_counts_are_those_of_enumeration(self, only_sums):
        cost, _ = dense_cost(3, 2, seed=1)
        constraint = Constraint("flops", 0, 1200, 2)
        sampler, enumerated = TreeSampler(cost, constraint), EnumeratedSampler(cost, constraint)
        counts = [enumerated.count(target) for target in constraint.targets]
        assert [sampler.count(target) for target in constraint.targets] == counts
        assert 0 in counts and sum(counts) > 1000

    @pytest.mark.parametrize("from_top", [False, True])
    def test_ends_are_drawn_by_finer_bins(self, from_top, only_sums, no_lists, monkeypatch):
        monkeypatch.setattr(tree_sampler, "MOST_LISTED", 0)
        monkeypatch.setattr(tree_sampler, "_ENOUGH_ACCEPTED", 2.0)
        cost, _ = dense_cost(4, 2, scale=0.1)
        constraint = targets_between(cost, 12)
        sampler = TreeSampler(cost, constraint)
        target = sampler.reachable_targets[-4 if from_top else 1]
        finer = sampler._finer[constraint.targets.index(target)]
        assert any(d.from_top == from_top and d.width < sampler._width / 10 for d in finer)
        assert is_drawn_from(sampler.draw_many(target, 20_000, np.random.default_rng(0))[0], cost, constraint, target)

    def test_memory_is_told_before(self, only_sums):
        cost, _ = dense_cost(4, 2)
        sampler = TreeSampler(cost, targets_between(cost, 6))
        arrays = {
            id(a): a.nbytes
            for d in sampler._made
            for part in (d._messages, d.steps, [*d._renamed.values()], *d._joint)
            for a in part
        }
        needed = sum(sampler._bytes(outer, sampler._width, sampler._needed) for outer in range(2))
        assert sum(arrays.values()) <= needed <= 2 * sum(arrays.values())

    def test_a_dense_block_of_twenty_layers(self):
        """6e25 subnets, whose clique would be all outputs: every target is reached."""
        cost, by_hand = dense_cost(20)
        ends = cost(np.array([np.zeros(len(cost.space), int), np.array(cost.space.shape) - 1]))
        constraint = Constraint.spread("flops", 20, max(ends[0], 1.0), ends[1])
        sampler = build_conditional_sampler(cost, constraint)
        assert sampler.reachable_targets == constraint.targets
        for target in constraint.targets:
            draws, _ = sampler.draw_many(target, 20, np.random.default_rng(0))
            assert (np.abs(by_hand(draws) - target) <= constraint.step / 2).all()

    def test_sums_are_left_out_where_they_take_more_memory(self):
        """Two widths joined for one layer: a tree as it is, and a triangle with their sum."""
        widths = np.arange(1, 41)
        space = SearchSpace([Dimension(name, "channels", tuple(widths.tolist())) for name in "abcd"])
        terms = [
            ProductTerm((("a", widths), ("b", widths)), CostTerm(("c",), widths)),
            CostTerm(("c", "d"), np.multiply.outer(widths, widths)),
        ]
        cost = AdditiveCost(space, terms)
        assert len(cost.products) == 1
        assert not TreeSampler(cost, Constraint("flops", 500, 4000, 500))._layout.tree.derived


def test_a_listed_target_has_the_spaces_distribution():
    cost = tree_cost("residual", 2)
    constraint = targets_between(cost, 9)
    sampler, generator = TreeSampler(cost, constraint), np.random.default_rng(0)
    assert len(sampler._listed) == len(sampler.reachable_targets)
    for target in sampler.reachable_targets:
        assert is_drawn_from(sampler.draw_many(target, 5000, generator)[0], cost, constraint, target)


@pytest.mark.parametrize("from_top", [False, True])
def test_ends_are_drawn_by_finer_bins(from_top, no_lists, monkeypatch):
    """Where few draws near a target would be accepted, bins are finer and are counted from the nearer end."""
    monkeypatch.setattr(tree_sampler, "MOST_LISTED", 0)
    monkeypatch.setattr(tree_sampler, "_ENOUGH_ACCEPTED", 2.0)
    cost = tree_cost("concatenation", 2, seed=3)
    constraint = targets_between(cost, 12)
    sampler = TreeSampler(cost, constraint)
    target = sampler.reachable_targets[-3 if from_top else 2]
    finer = sampler._finer[constraint.targets.index(target)]
    assert any(d.from_top == from_top and d.width < sampler._width / 10 for d in finer)
    draws, _ = sampler.draw_many(target, 20_000, np.random.default_rng(0))
    assert is_drawn_from(draws, cost, constraint, target)


def test_tails_of_tiny_probability_keep_their_ratios(no_lists):
    """Two subnets at the upper end, of probability 1e-15 and 3e-15 in the whole space, in branches of a tree."""
    rare = 1e-5
    dimensions = [Dimension(f"w{i}", "channels", (0, 1), (1 - rare, rare)) for i in range(3)]
    dimensions.append(Dimension("w3", "channels", (0, 1, 2), (0.6, 0.1, 0.3)))
    terms = [CostTerm(("w0", f"w{i}"), np.array([[0.0, 100.0], [50.0, 150.0]])) for i in (1, 2)]
    terms.append(CostTerm(("w0", "w3"), np.array([[0.0, 100.0, 101.0]] * 2)))
    sampler = TreeSampler(AdditiveCost(SearchSpace(dimensions), terms), Constraint("flops", 0, 400, 4))
    draws, _ = sampler.draw_many(400, 4000, np.random.default_rng(0))
    assert set(draws[:, 3].tolist()) == {1, 2}
    share = (draws[:, 3] == 2).mean()
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5


def test_equal_seeds_give_equal_draws(no_lists):
    cost = tree_cost("residual", 3)
    constraint = targets_between(cost, 4)
    one, other = (
        TreeSampler(cost, constraint).draw_many(constraint.targets[1], 500, np.random.default_rng(7)) for _ in range(2)
    )
    np.testing.assert_array_equal(one[0], other[0])


class TestMemory:
    """What does not fit is made coarser, and then refused."""

    def test_coarse_bins_are_as_exact(self, no_lists, monkeypatch):
        cost = tree_cost("concatenation", 2)
        constraint = targets_between(cost, 6)
        fine = TreeSampler(cost, constraint)
        needed = sum(fine._bytes(outer, fine._width, fine._needed) for outer in range(2))
        arrays = [a for d in fine._made for part in (d._messages, d.steps, *(j[1:] for j in d._joint)) for a in part]
        kept = sum(array.nbytes for array in arrays)
        assert kept <= needed <= 2 * kept
        monkeypatch.setattr(tree_sampler, "_MOST_BYTES_IN_ALL", needed // 3)
        coarse = TreeSampler(cost, constraint)
        assert coarse._width > 2 * fine._width
        assert coarse.reachable_targets == fine.reachable_targets
        for target in coarse.reachable_targets:
            draws, _ = coarse.draw_many(target, 10_000, np.random.default_rng(0))
            assert is_drawn_from(draws, cost, constraint, target)

    def test_too_large_a_clique_is_named(self):
        names = [f"branch{i}" for i in range(12)]
        space = SearchSpace([Dimension(name, "channels", tuple(range(9))) for name in ["lone", *names]])
        terms = [CostTerm(pair, np.multiply.outer(np.arange(9), np.arange(9))) for pair in combinations(names, 2)]
        with pytest.raises(ConfigError, match=r"ties \['branch0', .*'branch11'\] together, 282429536481 combinations"):
            build_conditional_sampler(AdditiveCost(space, terms), Constraint("flops", 10, 500, 10))


class TestLargeSpaces:
    """Spaces that cannot be enumerated."""

    def test_which_sampler_a_space_gets(self):
        sizes = dict(a=40, b=40, c=40, d=40)
        space = SearchSpace([Dimension(name, "channels", tuple(range(n))) for name, n in sizes.items()])
        table = np.add.outer(np.arange(40.0), np.arange(40.0))
        constraint = Constraint("flops", 50, 150, 50)
        chain = [CostTerm(pair, table) for pair in ("ab", "bc", "cd")]
        assert isinstance(build_conditional_sampler(AdditiveCost(space, chain), constraint), ChainSampler)
        cycle = AdditiveCost(space, [*chain, CostTerm(("a", "d"), table)])
        assert isinstance(build_conditional_sampler(cycle, constraint), TreeSampler)

    def test_a_gap_has_no_targets(self):
        """3e12 subnets around a hub that leaps over a gap."""
        generator = np.random.default_rng(0)
        hub = np.array([0.0, 1.0, 40.0])
        space = SearchSpace(
            [
                Dimension("hub", "op", tuple("xyz")),
                *(Dimension(f"w{i}", "channels", tuple(range(10))) for i in range(12)),
            ]
        )
        terms = [CostTerm(("hub",), hub)]
        terms += [CostTerm(("hub", f"w{i}"), generator.random((3, 1)) * np.arange(10) / 10) for i in range(12)]
        sampler = TreeSampler(AdditiveCost(space, terms), Constraint("latency", 0, 52, 1))
        assert set(range(1, 13)) & set(sampler.reachable_targets) and 42 in sampler.reachable_targets
        assert set(range(15, 39)) <= set(sampler.unreachable_targets)

    def test_few_subnets_of_many_are_counted(self):
        """A hub and nine leaves of 0 to 9: one subnet costs 0, nine cost 1, 45 cost 2, …; a leap to 90 and on."""
        space = SearchSpace(
            [Dimension("hub", "op", (0, 1)), *(Dimension(f"w{i}", "channels", tuple(range(10))) for i in range(9))]
        )
        terms = [CostTerm(("hub", f"w{i}"), np.add.outer([0.0, 10.0], np.arange(10.0))) for i in range(9)]
        sampler = TreeSampler(AdditiveCost(space, terms), Constraint("flops", 0, 180, 1))
        rare = {0: 1, 1: 9, 2: 45, 3: 165, 80: 9, 81: 1, 82: 0, 89: 0, 90: 1, 91: 9, 171: 1, 172: 0}
        assert {target: sampler.count(target) for target in rare} == rare
        assert sampler.count(40) >= 10_000

    def test_finer_bins_tell_a_needle_beside_a_crowd(self):
        """One subnet in the target, and a million a quarter of a bin beyond its edge."""
        space = SearchSpace([Dimension("hub", "op", (0, 1)), *(Dimension(f"w{i}", "op", (0, 1)) for i in range(20))])
        terms = [CostTerm(("hub",), np.array([10.504, 10.0]))]
        terms += [CostTerm(("hub", f"w{i}"), np.array([[0.0, 1e-6], [0.0, 50.0]])) for i in range(20)]
        sampler = TreeSampler(AdditiveCost(space, terms), Constraint("flops", 9, 12, 1))
        assert sampler.reachable_targets == (10, 11)
        assert sampler.count(10) == 1 and sampler.count(11) == 2**20
        draws, _ = sampler.draw_many(10, 3, np.random.default_rng(0))
        assert (draws == [1, *[0] * 20]).all()

    def test_more_subnets_than_can_be_counted_are_an_error(self):
        space = SearchSpace([Dimension(f"w{i}", "channels", tuple(range(10))) for i in range(301)])
        terms = [CostTerm((f"w{i}", f"w{i - 2}"), np.eye(10)) for i in range(2, 301)]
        with pytest.raises(ConfigError, match=r"10\^301 subnets, more than can be counted"):
            build_conditional_sampler(AdditiveCost(space, terms), Constraint("flops", 0, 300, 100))

    def test_what_cannot_be_told_is_an_error(self, monkeypatch):
        """Half a million subnets of distinct costs, all 1e-12 beyond an edge."""
        monkeypatch.setattr(binned_sampler, "_MAX_ROUNDS", 2)
        space = SearchSpace([Dimension(f"w{i}", "channels", (0, 1)) for i in range(20)])
        terms = [CostTerm(("w0", f"w{i}"), np.array([[1, 1 + 1e-13 / i]] * 2)) for i in range(1, 20)]
        beyond = 19 - 0.5 - 1e-12
        with pytest.raises(ConfigError, match=r"more than 100000 subnets have about the edges of .*first or step"):
            TreeSampler(AdditiveCost(space, terms), Constraint("flops", beyond, beyond, 1))

    def test_a_resnet_with_free_inner_widths(self):
        """1e30 subnets: all of 20 targets from the smallest to the largest are reached."""
        cost = resnet_cost()
        ends = cost(np.array([np.zeros(len(cost.space), int), np.array(cost.space.shape) - 1]))
        constraint = Constraint.spread("flops", 20, *ends)
        sampler = build_conditional_sampler(cost, constraint)
        assert isinstance(sampler, TreeSampler)
        assert sampler.reachable_targets == constraint.targets
        for target in constraint.targets:
            _, resources = sampler.draw_many(target, 20, np.random.default_rng(0))
            assert (np.abs(resources - target) <= constraint.step / 2).all()


def resnet_cost():
    """ResNet-50 in 1e6 MACs: 9 widths of the stem and of each stage, two inner widths of 5 to 9 a block."""
    generator = np.random.default_rng(0)
    widths = {"stem": 64 * np.linspace(0.6, 1, 9)}
    widths |= {f"stage{i}": 256 * 2**i * np.linspace(0.6, 1, 9) for i in range(4)}
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for name in (f"{stage}.{block}{conv}" for block in range(blocks) for conv in "ab"):
            widths[name] = 64 * 2**stage * np.linspace(0.4, 1, int(generator.integers(5, 10)))
    widths = {name: np.rint(values) for name, values in widths.items()}
    resolutions = 128 + 8 * np.arange(13)
    dimensions = [Dimension(name, "channels", tuple(values.tolist())) for name, values in widths.items()]
    space = SearchSpace([*dimensions, Dimension("resolution", "resolution", tuple(resolutions.tolist()))])
    terms = [CostTerm(("stem", "resolution"), np.multiply.outer(147 * widths["stem"], np.ceil(resolutions / 2) ** 2))]

    def conv(source, sink, kernel, stride):
        table = kernel**2 * np.multiply.outer(widths[source], widths[sink])
        terms.append(
            CostTerm((source, sink, "resolution"), np.multiply.outer(table, np.ceil(resolutions / stride) ** 2))
        )

    source = "stem"
    for stage, blocks in enumerate((3, 4, 6, 3)):
        sink, stride = f"stage{stage}", 4 * 2**stage
        conv(source, sink, 1, stride)
        for a, b in ((f"{stage}.{block}a", f"{stage}.{block}b") for block in range(blocks)):
            conv(source, a, 1, stride)
            conv(a, b, 3, stride)
            conv(b, sink, 1, stride)
            source = sink
    terms.append(CostTerm(("stage3",), 1000 * widths["stage3"]))
    return AdditiveCost(space, terms, 1e-6)


def test_min_fill_keeps_cliques_small():
    """A cycle needs cliques of three, a tree of two; every table is inside the bag that holds it."""
    cycle = [(i, (i + 1) % 8) for i in range(8)]
    tree = [(0, 1), (0, 2), (2, 3), (2, 4), (4, 5)]
    for scopes, sizes, most in ((cycle, [3] * 8, 3), (tree, [3] * 6, 2)):
        bags = BagTree(sizes, scopes)
        assert max(len(bag.separator) + 1 for bag in bags.bags[:-1]) == most
        assert all(set(scope) <= set(bags.bags[bags.holder(scope)].scope) for scope in scopes)
        assert sorted(variable for bag in bags.bags for variable in bag.variables) == [ROOT, *range(len(sizes))]
        assert sorted(child for bag in bags.bags for child in bag.children) == list(range(len(bags.bags) - 1))


def test_leaves_take_their_siblings_messages():
    """In a star there is nothing to convolve: each leaf has the next one's message."""
    bags = BagTree([3] * 6, [(0, i) for i in range(1, 6)]).bags
    assert max(len(bag.children) for bag in bags) == 1
    for bag in bags:
        assert all(set(bags[child].separator) <= set(bag.scope) for child in bag.children)


def test_derived_variables_go_before_their_inputs():
    total = np.add.outer(np.arange(3), np.arange(3))
    derived = {3: Derived((0, 1), total), 4: Derived((3, 2), np.add.outer(np.arange(5), np.arange(3)))}
    tree = BagTree([3, 3, 3, 5, 7], [(4,), (0, 2)], derived)
    place = {variable: position for position, bag in enumerate(tree.bags) for variable in bag.variables}
    assert place[4] < place[3] < min(place[0], place[1])
    bag = tree.bags[place[4]]
    assert {2, 3} <= set(bag.separator)
    rows = tree.message_rows(bag, bag.scope)
    assert rows.shape == (tree.count(bag.separator), 1)
    chosen = np.unravel_index(rows.ravel(), [tree.sizes[variable] for variable in bag.scope])
    value = dict(zip(bag.scope, chosen, strict=True))
    np.testing.assert_array_equal(value[4], value[2] + value[3])


def test_variables_that_depend_on_all_of_each_others_bags_are_eliminated_together():
    """A clique is one bag; a chain is not, where that would take longer."""
    clique = BagTree([3, 3, 3], [(0, 1, 2)])
    assert [sorted(bag.variables) for bag in clique.bags[:-1]] == [[0, 1, 2]]
    assert clique.bags[0].scope == clique.bags[0].variables and clique.count_choices(clique.bags[0]) == 27
    chain = BagTree([3] * 5, [(i, i + 1) for i in range(4)])
    # The last two have no others.
    assert sorted(len(bag.variables) for bag in chain.bags[:-1]) == [1, 1, 1, 2]
    assert max(len(bag.variables) for bag in BagTree([20, 20], [(0, 1)]).bags) == 1
