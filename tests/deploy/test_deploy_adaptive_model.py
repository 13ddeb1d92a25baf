from __future__ import annotations

import dataclasses
import sys
import threading

import pytest
import torch

from pss_razor.core import ExportError
from pss_razor.deploy import AdaptiveModel


@pytest.fixture
def model(bundle_file):
    return AdaptiveModel.load(bundle_file)


def test_select(model):
    assert model.current.name == "subnet_5"  # the most accurate at first
    assert model.select(flops=3.5).name == model.current.name == "subnet_2"
    assert model.select(flops=3.0).name == "subnet_2"
    assert model.select(flops=6, latency_cpu=3000).name == "subnet_3"
    assert model.select(latency_cpu_us=3999.9).name == "subnet_3"
    assert model.select().name == "subnet_5"
    assert model.metrics == ["flops", "latency_cpu", "params"]


def test_no_subnet_within_the_budget(model):
    model.select(flops=2)
    with pytest.raises(ExportError, match=r"no subnet has flops <= 0\.5; the cheapest, 'subnet_0', has flops = 1"):
        model.select(flops=0.5)
    with pytest.raises(ExportError, match=r"flops <= 0\.5 and params <= 100; the cheapest, 'subnet_0'"):
        model.select(flops=0.5, params=100)
    assert model.current.name == "subnet_1"


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "3", True, None])
def test_bad_budgets(model, value):
    with pytest.raises(ExportError, match=r"budget flops is .* a positive number"):
        model.select(flops=value)


def test_unknown_metric(model):
    with pytest.raises(ExportError, match=r"'energy' is not a resource .*known: flops, latency_cpu, params"):
        model.select(energy=3)
    with pytest.raises(ExportError, match="there is no subnet 'x'; there are subnet_0"):
        model.use("x")


def test_ties_and_unmeasured_accuracies(supernet_subnets):
    def model(*accuracies):
        pairs = zip(supernet_subnets, accuracies, strict=False)
        return AdaptiveModel([dataclasses.replace(subnet, accuracy=value) for subnet, value in pairs], {})

    assert model(50, 50, 50).current.name == "subnet_0"
    assert model(None, None, None).current.name == "subnet_2"
    assert model(None, 10, None).current.name == "subnet_1"
    assert model(None, None, None).select(flops=2).name == "subnet_1"
    assert [subnet.name for subnet in model(50, 49, 51, 51).ladder("flops")] == ["subnet_0", "subnet_2"]


@pytest.mark.parametrize("working_copies", [0, 1, 2])
def test_outputs(supernet_subnets, bundle_file, working_copies):
    model = AdaptiveModel.load(bundle_file, working_copies=working_copies)
    images = torch.randn(3, 3, 40, 40)
    for subnet in supernet_subnets + supernet_subnets[::-1]:
        model.use(subnet.name)
        expected = subnet.net(images)
        for _ in range(2):
            assert (model(images) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_working_copies(supernet_subnets, bundle_file):
    model = AdaptiveModel.load(bundle_file, working_copies=2)

    def contiguous():
        return [s.name for s in model.subnets[:5] if all(p.is_contiguous() for p in s.net.parameters())]

    assert contiguous() == []
    for name in ("subnet_0", "subnet_1", "subnet_0", "subnet_2"):
        model.use(name)
        assert name not in contiguous() or name == "subnet_0"  # a switch copies nothing
        model(torch.zeros(1, 3, 16, 16))
    assert contiguous() == ["subnet_0", "subnet_2"]
    with pytest.raises(ExportError, match="working_copies is -1"):
        AdaptiveModel.load(bundle_file, working_copies=-1)


def test_warm_up(model):
    model.use("subnet_3")
    model.warm_up(["subnet_0"], batch_size=2)
    assert all(parameter.is_contiguous() for parameter in model.subnets[0].net.parameters())
    assert model.current.name == "subnet_3"
    with pytest.raises(ExportError, match="no subnet 'x'"):
        model.warm_up(["x"])


def test_switches_do_not_change_passes_under_way(model):
    images = torch.randn(2, 3, 32, 32)
    expected = {}
    for subnet in model.subnets:
        model.use(subnet.name)
        expected[subnet.name] = model(images)
    stop = threading.Event()

    def switch():
        names = list(expected)
        while not stop.is_set():
            names.append(names.pop(0))
            model.use(names[0])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=switch)
    thread.start()
    try:
        seen = set()
        for _ in range(150):
            logits = model(images)
            matches = [name for name, value in expected.items() if torch.allclose(logits, value, rtol=0, atol=1e-6)]
            assert len(matches) == 1
            seen.update(matches)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert len(seen) > 1


def test_a_call_returns_the_subnet_that_it_chose(bundle_file):
    """Another thread switches at the worst moment, right after the choice."""

    class SwitchedByAnother(AdaptiveModel):
        _current = property(lambda self: 0, lambda self, index: None)

    model = SwitchedByAnother.load(bundle_file)
    assert model.use("subnet_3").name == "subnet_3"
    assert model.select(flops=3.5).name == "subnet_2"
    assert model.current.name == "subnet_0"  # which is the other thread's


def test_one_budget_under_two_names(model):
    for budgets in (dict(latency_cpu=4000, latency_cpu_us=1000), dict(latency_cpu_us=1000, flops=3, latency_cpu=4000)):
        with pytest.raises(ExportError, match=" and ".join(name for name in budgets if name != "flops")):
            model.select(**budgets)
    assert model.current.name == "subnet_5"


class Stream:
    """Stands in for a stream of a GPU, of which the tests have none."""

    def __init__(self, model):
        self.model = model
        self.contiguous = None
        self.waited_for = []

    def wait_stream(self, stream):
        self.waited_for.append(stream)

    def synchronize(self):
        self.contiguous = [all(p.is_contiguous() for p in subnet.net.parameters()) for subnet in self.model.subnets]


def test_copies_on_streams_of_a_gpu(bundle_file, monkeypatch):
    """Copies are complete before any pass can meet them, and no stream's memory is given away while it may read."""
    model = AdaptiveModel.load(bundle_file, working_copies=2)
    streams = [Stream(model), Stream(model)]
    current = streams[0]
    recorded = {stream: set() for stream in streams}
    monkeypatch.setattr(model, "_current_stream", lambda: current)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: recorded[stream].add(id(tensor)))
    views = {index: {id(p) for p in model.subnets[index].net.parameters()} for index in (0, 1)}

    def copies(index):
        return {id(p) for p in model.subnets[index].net.parameters()} - views[index]

    images = torch.zeros(1, 3, 16, 16)
    model.use("subnet_0")
    model(images)
    assert streams[0].contiguous is None  # a stream that is alone has its passes behind its copies
    assert copies(0) and recorded == {streams[0]: copies(0), streams[1]: set()}
    current = streams[1]
    model(images)  # meets the copies that the other stream made
    assert recorded[streams[1]] == copies(0) and streams[1].waited_for == [streams[0]]
    model.use("subnet_1")
    model(images)
    assert streams[1].contiguous[:2] == [True, False]  # waited for when made, before they were put in place
    assert recorded[streams[0]] == recorded[streams[1]] == copies(0) | copies(1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 4, 16, 16), "shape"),
        (torch.zeros(3, 16, 16), "shape"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "normalise"),
    ],
)
def test_bad_images(model, images, message):
    with pytest.raises(ExportError, match=message):
        model(images)
