from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from pss_razor.core import ExportError
from pss_razor.deploy import AdaptiveController, SubnetRecord
from pss_razor.deploy.subnet_switch import SubnetSwitch


class Machine(SubnetSwitch):
    """Subnets that take as long as they are said to, times the slowdown of a simulated machine."""

    def __init__(self, costs, metric="latency_cpu"):
        record = SubnetRecord(
            name="n", metric=metric, target=0.0, resources={}, accuracy=0.0, channels={}, resolution=32
        )
        super().__init__(
            [
                dataclasses.replace(record, name=f"n{i}", resources={metric: cost}, accuracy=50.0 + i)
                for i, cost in enumerate(costs)
            ],
            {},
        )
        self.time = 0.0
        self.slowdown = 1.0
        self.factors = {}
        self.noise = itertools.cycle([1.0])

    def clock(self):
        return self.time

    def _run(self, index, images):
        cost = next(iter(self.subnets[index].resources.values()))
        factor = self.factors.get(self.subnets[index].name, 1.0)
        self.time += cost * factor * self.slowdown * next(self.noise) * 1e-6
        return images


NOISE = [1.0, 1.02, 0.98, 1.05, 0.97, 3.0, 1.01, 0.99]  # a spike among them
COSTS = [1000.0 * k for k in range(1, 11)]


def _drive(controller, calls):
    names = []
    for _ in range(calls):
        controller(torch.zeros(1, 3, 32, 32))
        names.append(controller.current.name)
    return names


def _switches(names):
    return sum(a != b for a, b in itertools.pairwise(names))


def test_a_machine_that_slows_down_and_recovers():
    machine = Machine(COSTS)
    machine.noise = itertools.cycle(NOISE)
    controller = AdaptiveController(machine, target_latency_us=10_500, clock=machine.clock)
    quiet = _drive(controller, 200)
    assert set(quiet) == {"n8"}  # what 90 % of the target are enough for; spikes change nothing

    machine.slowdown = 3.0
    loaded = _drive(controller, 200)
    assert _switches(loaded) <= 2
    assert set(loaded[32:]) == {"n2"} and controller.median_latency_us <= 10_500

    machine.slowdown = 1.0
    recovered = _drive(controller, 200)
    assert _switches(recovered) == 1
    assert set(recovered[:44]) == {"n2"}  # not at once: hysteresis
    assert set(recovered[70:]) == {"n8"} and controller.median_latency_us <= 10_500


def test_follows_from_the_latencies_alone():
    def run():
        machine = Machine(COSTS)
        machine.noise = itertools.cycle(NOISE)
        controller = AdaptiveController(machine, 10_000, clock=machine.clock)
        names = _drive(controller, 100)
        machine.slowdown = 2.0
        return names + _drive(controller, 100)

    assert run() == run()


def test_a_mispredicted_subnet_is_not_tried_for_ever():
    machine = Machine([1000.0, 2000.0])
    machine.factors = {"n1": 3.0}
    controller = AdaptiveController(machine, 5000, patience=10, clock=machine.clock)
    first, later = _drive(controller, 500), _drive(controller, 500)
    assert first.count("n0") > 350
    assert 0 < _switches(later) <= 4 < _switches(first)


def test_steps_down_until_the_target_is_met_although_costs_mislead():
    machine = Machine(COSTS)
    machine.factors = {f"n{i}": 10 / (i + 1) for i in range(4, 10)}  # the six largest take the same time
    controller = AdaptiveController(machine, 9500, clock=machine.clock)
    names = _drive(controller, 1000)
    assert "n3" in names[:80]  # the best that meets the target
    assert set(names[80:]) <= {f"n{i}" for i in range(3, 8)}
    assert names.count("n3") > 700  # better ones are tried again, ever more rarely


def test_calibration_replaces_costs_that_mislead():
    machine = Machine(COSTS, metric="flops")
    machine.factors = {f"n{i}": (100 + i) / (i + 1) for i in range(10)}  # all take about 100 ms
    controller = AdaptiveController(machine, 105_500 / 0.9, clock=machine.clock)
    assert controller.current.name == "n0"
    controller.calibrate(torch.zeros(1, 3, 32, 32))
    assert set(_drive(controller, 100)) == {"n5"}
    machine.slowdown = 0.9
    assert set(_drive(controller, 100)[70:]) == {"n9"}


def test_the_cheapest_stays_when_nothing_helps():
    machine = Machine(COSTS)
    machine.slowdown = 100.0
    controller = AdaptiveController(machine, 5000, clock=machine.clock)
    assert set(_drive(controller, 100)[40:]) == {"n0"} and controller.median_latency_us > 5000


def test_starts_with_the_cheapest_where_costs_are_not_latencies():
    machine = Machine([70.0, 300.0], metric="flops")
    controller = AdaptiveController(machine, 1000, clock=machine.clock)
    assert controller.current.name == "n0"
    assert set(_drive(controller, 120)[80:]) == {"n1"}


def test_decides_what_is_current():
    machine = Machine(COSTS)
    controller = AdaptiveController(machine, 5000, clock=machine.clock)
    machine.use("n9")
    _drive(controller, 1)
    assert machine.current == controller.current == machine.subnets[3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_latency_us": 0}, "target_latency_us is 0"),
        ({"target_latency_us": float("nan")}, "target_latency_us is nan"),
        ({"window": 0}, "window is 0"),
        ({"headroom": 1.5}, "headroom is 1.5"),
        ({"patience": 0}, "patience is 0"),
        ({"metric": "energy"}, "'energy' is not a resource"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ExportError, match=message):
        AdaptiveController(Machine(COSTS), **{"target_latency_us": 1000, **options})


def test_several_latencies_need_a_choice():
    machine = Machine([1.0])
    two = {"latency_cpu": 1.0, "latency_gpu": 2.0}
    subnets = [dataclasses.replace(machine.subnets[0], resources=two)]
    SubnetSwitch.__init__(machine, subnets, {})
    with pytest.raises(ExportError, match="latency_cpu, latency_gpu; say by metric="):
        AdaptiveController(machine, 1000)
    assert AdaptiveController(machine, 1000, metric="latency_gpu").current == subnets[0]
