"""tools/predict.py and tools/controller_demo.py, in processes of their own: they must not need OpenMMLab."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from pss_razor.deploy import BundledSubnet, round_bn_statistics, save_bundle
from pss_razor.deploy.preprocess import load_image, preprocess
from pss_razor.static import trace_static

PREPROCESSING = {"mean": [120.0] * 3, "std": [60.0] * 3, "channel_order": "RGB", "resize": {"resize": 32}}
# Refuses the packages that a machine with a deployed network does not have.
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("mmengine", "mmcv", "mmcls", "mmrazor", "torchvision"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
"""


def _subnet(full: nn.Sequential, width: int) -> BundledSubnet:
    conv, norm = nn.Conv2d(3, width, 3, 2, bias=False), nn.BatchNorm2d(width)
    linear = nn.Linear(width, 4)
    conv.weight.data, linear.weight.data = full[0].weight.data[:width], full[1].weight.data[:, :width]
    linear.bias.data = full[1].bias.data
    norm.running_mean = round_bn_statistics(torch.randn(width))
    net = trace_static(nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear), 32)
    return BundledSubnet(
        net=net,
        name=f"flops_{width}",
        metric="flops",
        target=float(width),
        resources={"flops": float(width), "latency_cpu": 1000.0 * width},
        accuracy=50.0 + width,
        channels={"conv": width},
        resolution=32,
    )


@pytest.fixture(scope="module")
def subnets():
    torch.manual_seed(0)
    full = nn.Sequential(nn.Conv2d(3, 8, 3, 2, bias=False), nn.Linear(8, 4))
    return [_subnet(full, width) for width in (4, 8)]


@pytest.fixture
def files(subnets, tmp_path):
    """A bundle, an image, a list of classes, and what keeps OpenMMLab from being imported."""
    save_bundle(tmp_path / "bundle.safetensors", subnets, PREPROCESSING)
    pixels = np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), pixels)
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    return tmp_path


def test_predict(subnets, files, spawn):
    image = files / "image.png"
    arguments = [image, "--budget", "latency_cpu_us=5000", "flops=100", "--classes", files / "classes.txt"]
    done = spawn("tools/predict.py", files / "bundle.safetensors", *arguments, "--topk", 2, PYTHONPATH=str(files))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("subnet flops_4: flops 4, latency_cpu 4000; accuracy 54.00 %; resolution 32")
    assert lines[1] == str(image) and len(lines) == 4
    logits = subnets[0].net(preprocess(load_image(image), PREPROCESSING))
    best = logits.softmax(1)[0].topk(2)
    names = ["ant", "bee", "cat", "dog"]
    for line, probability, label in zip(lines[2:], best.values.tolist(), best.indices.tolist(), strict=True):
        assert line.split() == [f"{probability:.1%}", names[label]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--budget", "energy=3"], ["'energy' is not a resource", "flops, latency_cpu"]),
        (["--budget", "flops=1"], ["no subnet has flops <= 1", "'flops_4'"]),
        (["--budget", "flops"], ["--budget flops", "METRIC=VALUE"]),
        (["--topk", "0"], ["--topk 0"]),
        (["--classes", "nowhere.txt"], ["--classes nowhere.txt cannot be read"]),
    ],
)
def test_bad_arguments(files, run_tool, change, words):
    message = run_tool("predict.py", files / "bundle.safetensors", files / "image.png", *change)
    assert all(word in message for word in words), message


def test_bad_files(files, run_tool):
    bundle, image = files / "bundle.safetensors", files / "image.png"
    assert "not a file; give the bundle" in run_tool("predict.py", files, image)
    assert "nowhere.png does not exist" in run_tool("predict.py", bundle, files / "nowhere.png")
    assert "cannot be decoded" in run_tool("predict.py", bundle, files / "classes.txt")
    (files / "classes.txt").write_text("ant\n")
    assert "has 1 lines" in run_tool("predict.py", bundle, image, "--classes", files / "classes.txt")
    bundle.write_bytes(bundle.read_bytes()[:-1])
    assert "truncated" in run_tool("predict.py", bundle, image)


@pytest.fixture
def run_tool(monkeypatch):
    """Runs a tool in this process; its one-line error."""
    import runpy
    import sys
    from pathlib import Path

    def run(tool, *args):
        monkeypatch.setattr(sys, "argv", [tool, *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(Path(__file__).parents[2] / "tools" / tool), run_name="__main__")
        assert str(exit_.value.code).startswith("error: ")
        return str(exit_.value.code)

    return run


@pytest.mark.slow
def test_controller_demo(files, spawn):
    out = files / "demo"
    done = spawn(
        "tools/controller_demo.py",
        files / "bundle.safetensors",
        *("--out", out, "--seconds", 1.5, "--load-processes", 1, "--target-latency-us", 1e6),
    )
    assert done.returncode == 0, done.stderr
    with (out / "controller.csv").open() as file:
        calls = list(csv.DictReader(file))
    assert len(calls) > 20 and {call["loaded"] for call in calls} == {"0", "1"}
    assert calls[-1]["subnet"] == "flops_8" and float(calls[-1]["accuracy"]) == 58
    assert (out / "controller.png").read_bytes().startswith(b"\x89PNG")
