"""Published points beside subnets, against a case by hand."""

from __future__ import annotations

import dataclasses

import pytest

from pss_razor.comparison.reproduction import find_nearest, format_reproductions, make_curve
from pss_razor.core import ConfigError, EvaluatedSubnet, Subnet
from pss_razor.visualization import Curve


def record(name, metric, resolution, accuracy=None, **resources):
    metrics = None if accuracy is None else {"accuracy/top1": accuracy, "accuracy/top5": 99.0}
    subnet = Subnet({"resolution": resolution})
    return EvaluatedSubnet(subnet=subnet, name=name, metric=metric, target=None, resources=resources, metrics=metrics)


PUBLISHED = Curve("mbv1", "latency_cpu", "PSS-MBV1-C", "ms", ((30.0, 74.0), (11.0, 68.0), (16.5, 70.0)), published=True)
UNITS = {"latency_cpu": "us", "flops": "MFLOPs"}
RECORDS = [
    record("largest", None, 224, 73.5, latency_cpu=31000.0, flops=570.0),
    record("smallest", None, 128, 67.0, latency_cpu=10000.0, flops=107.0),
    record("latency_cpu_12000", "latency_cpu", 136, 68.25, latency_cpu=11800.0, flops=120.0),
    record("latency_cpu_17000", "latency_cpu", 160, 70.5, latency_cpu=17000.0, flops=250.0),
    record("flops_240", "flops", 168, 71.0, latency_cpu=16500.0, flops=240.0),
]


def test_nearest_in_the_unit_of_the_figure_and_in_the_pools_of_the_metric():
    found = find_nearest(PUBLISHED, RECORDS, UNITS, "accuracy/top1")
    assert [(r.published_resource, r.published_accuracy) for r in found] == [(11, 68), (16.5, 70), (30, 74)]
    assert [(r.name, r.resource, r.accuracy, r.resolution) for r in found] == [
        ("latency_cpu_12000", pytest.approx(11.8), 68.25, 136),
        ("latency_cpu_17000", pytest.approx(17.0), 70.5, 160),  # not the one of another metric's pool
        ("largest", pytest.approx(31.0), 73.5, 224),
    ]


def test_table():
    lines = format_reproductions("latency_cpu", find_nearest(PUBLISHED, RECORDS, UNITS, "accuracy/top1")).splitlines()
    assert lines[0] == "CPU latency (latency_cpu)"
    assert lines[1].split("  ")[-1].strip() == "pool" and "published ms" in lines[1]
    assert [line.split() for line in lines[2:5]] == [
        ["11", "11.80", "+7.3%", "68.00", "68.25", "+0.25", "136", "latency_cpu_12000"],
        ["16.5", "17.00", "+3.0%", "70.00", "70.50", "+0.50", "160", "latency_cpu_17000"],
        ["30", "31.00", "+3.3%", "74.00", "73.50", "-0.50", "224", "largest"],
    ]
    assert lines[5] == "difference in top-1: mean +0.08, largest +0.50"


def test_table_without_accuracies():
    records = [dataclasses.replace(own, metrics=None) for own in RECORDS]
    lines = format_reproductions("latency_cpu", find_nearest(PUBLISHED, records, UNITS)).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["11", "11.80", "+7.3%", "68.00", "136", "latency_cpu_12000"],
        ["16.5", "17.00", "+3.0%", "70.00", "160", "latency_cpu_17000"],
        ["30", "31.00", "+3.3%", "74.00", "224", "largest"],
    ]
    assert "here" not in lines[1]


def test_curve():
    curve = make_curve(RECORDS, UNITS, "latency_cpu", "accuracy/top1", PUBLISHED, "Digits")
    assert (curve.backbone, curve.metric, curve.label) == ("mbv1", "latency_cpu", "PSS-MBV1-C (here)")
    assert (curve.unit, curve.published, curve.dataset) == ("us", False, "Digits")
    assert sorted(curve.points) == [(10000, 67), (11800, 68.25), (17000, 70.5), (31000, 73.5)]


def test_units_that_do_not_fit():
    with pytest.raises(ConfigError, match="latency_cpu is in 'MFLOPs'"):
        find_nearest(PUBLISHED, RECORDS, {"latency_cpu": "MFLOPs"})
