"""Timing on a machine whose speed changes."""

import time

import pytest

from pss_razor.estimators.latency import timing
from pss_razor.estimators.latency.timing import MachineSpeed, time_interleaved


class SlowingMachine:
    """A clock whose calls take longer and longer."""

    def __init__(self, monkeypatch):
        self.now_s = 0.0
        self.slowness = 1.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now_s)

    def work(self, us):
        def call():
            self.slowness += 0.002
            self.now_s += us * self.slowness * 1e-6

        return call


def test_every_call_in_every_round_after_a_warm_up_round():
    order = []
    timings = time_interleaved([lambda n=n: order.append(n) for n in "abc"], rounds=5, device="cpu")
    assert len(timings) == 3
    rounds = [order[start : start + 3] for start in range(0, 18, 3)]
    assert all(sorted(own) == ["a", "b", "c"] for own in rounds)
    assert len({tuple(own) for own in rounds}) > 1, "the order changes"


def test_median_and_spread(monkeypatch):
    machine = SlowingMachine(monkeypatch)
    durations = iter([99.0, 5.0, 1.0, 2.0, 3.0, 4.0])  # the first is the warm-up

    def call():
        machine.now_s += next(durations) * 1e-6

    (result,) = time_interleaved([call], rounds=5, device="cpu")
    assert result.median_us == pytest.approx(3.0) and result.spread_us == pytest.approx(3.0)


def test_a_machine_that_slows_down(monkeypatch):
    """Without the reference the figures drift by tens of percent; with it they are those of the first moment."""
    work = [100.0, 250.0, 700.0]
    machine = SlowingMachine(monkeypatch)
    raw = time_interleaved([machine.work(us) for us in work], 40, "cpu")
    assert raw[0].median_us > 110
    machine = SlowingMachine(monkeypatch)
    speed = MachineSpeed(machine.work(50.0), "cpu")
    scale = speed.reference_us / 50.0
    normalized = time_interleaved([machine.work(us) for us in work], 40, "cpu", speed)
    for us, own in zip(work, normalized, strict=True):
        assert own.median_us == pytest.approx(us * scale, rel=0.01)
    assert machine.slowness > 1.2


def test_a_later_check_is_brought_to_the_speed_of_before(monkeypatch):
    machine = SlowingMachine(monkeypatch)
    first = MachineSpeed(machine.work(50.0), "cpu")
    machine.slowness *= 2
    later = MachineSpeed(machine.work(50.0), "cpu", first.reference_us)
    assert later.reference_us == first.reference_us
    assert later.factor() == pytest.approx(0.5, rel=0.05)


def test_the_speed_is_looked_at_within_long_rounds(monkeypatch):
    machine = SlowingMachine(monkeypatch)
    looks = []
    speed = MachineSpeed(machine.work(50.0), "cpu")
    monkeypatch.setattr(speed, "factor", lambda: looks.append(machine.now_s) or 1.0)
    time_interleaved([machine.work(1000.0)] * 10, rounds=1, device="cpu", speed=speed)
    # the warm-up round from start to end; then the start and every call, since a call is longer than the interval
    assert len(looks) == 2 + 11
    assert timing._SPEED_INTERVAL * timing._LOOKS * 50.0 < 1000.0
