"""What only a GPU can show: ``make test-gpu``, a few minutes on one. Skipped where there is none.

``make test-gpu DEVICE=cpu`` runs the same code on the CPU, but for what has no counterpart there.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from conftest import DEVICE
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "tiny" / "tiny_supernet.py"
sys.path.insert(0, str(ROOT / "benchmarks"))

if DEVICE == "cuda" and not torch.cuda.is_available():
    pytest.skip("torch sees no GPU; make test-gpu runs these where there is one", allow_module_level=True)

import common  # noqa: E402
import gpu  # noqa: E402
import training_step  # noqa: E402

from pss_razor.checkpoints.checkpoint import read_checkpoint  # noqa: E402
from pss_razor.deploy import AdaptiveModel  # noqa: E402
from pss_razor.engine.launch import build_runner, load_config  # noqa: E402
from pss_razor.estimators import LatencyTable  # noqa: E402

from mmengine.hooks import Hook  # noqa: E402

SMALL = {
    "model.architecture.resolutions": [32, 48, 64],
    "model.architecture.head.num_classes": 10,
    "model.constraints": [dict(metric="flops", num_targets=3)],
}
NETS = ("mbv1", "mbv2", "r50")


def run_tool(program: str, *args: object, **variables: str) -> subprocess.CompletedProcess:
    """Run a command of the README, one thread a process."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **variables}
    command = [str(ROOT / program), *map(str, args)]
    if program.endswith(".py"):
        command.insert(0, sys.executable)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The work directory of three epochs of the tiny config, with the checkpoint of each."""
    work_dir = tmp_path_factory.mktemp("trained")
    train(work_dir)
    return work_dir


def train(work_dir: Path, *options: object) -> None:
    # cuBLAS sums in one order only if it is told so before it starts.
    settings = ["randomness.deterministic=True", f"experiment_name={work_dir.name}"]
    run_tool(
        "tools/train.py", TINY, "--work-dir", work_dir, "--no-validate", *options, "--cfg-options", *settings,
        CUBLAS_WORKSPACE_CONFIG=":4096:8",
    )  # fmt: skip


# The same numbers as on a CPU


@pytest.mark.parametrize("net", NETS)
def test_logits_are_those_of_the_cpu(device, net):
    """In float32, with BN statistics of a batch: within 1e-3 of the largest logit."""
    algorithm, _ = common.build(f"pss_{net}_flops", **SMALL)
    images = torch.randn(8, 3, 64, 64)
    other = copy.deepcopy(algorithm).to(device)
    space = algorithm.space
    for subnet in (space.largest, training_step.middle_subnet(algorithm), space.smallest):
        logits = []
        for model, inputs in ((algorithm, images), (other, images.to(device))):
            model.train().mutator.activate(subnet)
            with torch.no_grad():
                logits.append(model(inputs).cpu())
        assert (logits[0] - logits[1]).abs().max() <= 1e-3 * logits[0].abs().max(), subnet


@pytest.mark.parametrize("net", NETS)
def test_a_training_step_is_that_of_the_cpu(device, net):
    """In float64, where sums of another order do not matter: losses within 1e-9, weights after a step within 1e-7."""
    algorithm, config = common.build(f"pss_{net}_flops", **SMALL)
    algorithm.double()
    batch = common.make_batch(8, 64, 10)
    found = []
    for place in ("cpu", device):
        model = copy.deepcopy(algorithm).to(place).train()
        model.sampled_subnet = training_step.middle_subnet(model)
        # The preprocessor makes float32 of 8-bit images.
        model.data_preprocessor.forward = lambda data, training, place=place: {
            "inputs": data["inputs"].to(place).double() / 128 - 1,
            "data_samples": [copy.deepcopy(sample).to(place) for sample in data["data_samples"]],
        }
        outputs = model.train_step(dict(batch), common.build_optimizer(model, config))
        found.append(({k: v.item() for k, v in outputs.items()}, {k: v.cpu() for k, v in model.state_dict().items()}))
    (losses, weights), (other_losses, other_weights) = found
    assert other_losses == pytest.approx(losses, rel=1e-9)
    before = algorithm.state_dict()
    assert any(not torch.equal(weights[name], before[name]) for name, _ in algorithm.named_parameters())
    for name, tensor in weights.items():
        torch.testing.assert_close(other_weights[name], tensor, rtol=1e-7, atol=1e-10, msg=name)


def test_evaluation_is_that_of_the_cpu(device, trained, tmp_path):
    """With the same calibration images: each accuracy within two of 48 images."""
    results = []
    for number, variables in enumerate([{"CUDA_VISIBLE_DEVICES": ""}, {}]):
        out = tmp_path / f"{number}.json"
        run_tool(
            "tools/test.py", TINY, trained / "epoch_3.pth", "--work-dir", tmp_path, "--out", out,
            "--cfg-options", "test_cfg.top_k=1", **variables,
        )  # fmt: skip
        results.append([record["metrics"] for record in json.loads(out.read_text())["subnets"]])
    for ours, theirs in zip(*results, strict=True):
        assert ours == pytest.approx(theirs, abs=2 * 100 / 48 + 1e-3)


# Mixed precision


@pytest.mark.parametrize("steps", [1, 4])
def test_a_first_step_that_overflows_is_as_if_it_had_not_been(device, steps):
    """``GradScaler`` skips it on the device; fused SGD must not take memory that nobody has written for momentum."""

    def run(overflow: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 5)).to(device)
        _, config = common.build("pss_mbv2_flops_digits")
        optimizer = common.build_optimizer(model, config).optimizer
        assert optimizer.defaults["fused"] and optimizer.defaults["momentum"]
        scaler = torch.amp.GradScaler(device, init_scale=2.0**100, backoff_factor=2.0**-90)
        images, labels = torch.randn(4, 3, 8, 8, device=device), torch.arange(4, device=device)
        # What the allocator hands out next was not a number before.
        poison = [torch.full_like(parameter, torch.nan) for parameter in model.parameters() for _ in range(4)]
        del poison
        for step in range(steps + 1):
            if step == 0 and not overflow:
                scaler = torch.amp.GradScaler(device, init_scale=2.0**10)
                continue
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels) * (1e10 if step == 0 else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return {name: tensor.detach().cpu() for name, tensor in model.named_parameters()}

    skipped, without = run(overflow=True), run(overflow=False)
    for name, tensor in without.items():
        torch.testing.assert_close(skipped[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_amp_training_whose_first_step_overflows(only_on_a_gpu, tmp_path):
    """``tools/train.py --amp`` in float16 on the real hooks: finite weights, losses and pools at the end."""
    options = [
        "optim_wrapper.type=AmpOptimWrapper", "optim_wrapper.dtype=float16", "optim_wrapper.loss_scale.init_scale=1e30",
        "optim_wrapper.loss_scale.growth_interval=100", "optim_wrapper.loss_scale.backoff_factor=1e-27",
        "experiment_name=amp", "train_cfg.max_epochs=2",
    ]  # fmt: skip
    run_tool("tools/train.py", TINY, "--work-dir", tmp_path, "--no-validate", "--amp", "--cfg-options", *options)
    checkpoint = read_checkpoint(tmp_path / "epoch_2.pth", needs_pools=True)
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint["state_dict"].values())
    buffers = [s["momentum_buffer"] for s in checkpoint["optimizer"]["state"].values()]
    assert buffers and all(torch.isfinite(buffer).all() for buffer in buffers)


# Resume, one process of NCCL


def test_resumed_equals_never_stopped(trained, tmp_path):
    """Bit by bit, with ``randomness.deterministic``."""
    train(tmp_path, "--resume", trained / "epoch_1.pth")
    a, b = (read_checkpoint(folder / "epoch_3.pth", needs_pools=True) for folder in (trained, tmp_path))
    assert a["pss"]["pools"] == b["pss"]["pools"] and a["pss"]["generator"] == b["pss"]["generator"]
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name
    for key, state in a["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], b["optimizer"]["state"][key]["momentum_buffer"]), key


def test_one_distributed_process(device, tmp_path):
    """Of NCCL on a GPU: training with DDP, then evaluation."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    options = ["--work-dir", tmp_path, "--cfg-options", "train_cfg.max_epochs=1"]
    done = run_tool("tools/dist_train.sh", TINY, 1, *options, PORT=port)
    assert f"backend='{'nccl' if device == 'cuda' else 'gloo'}'" in done.stdout
    assert len(read_checkpoint(tmp_path / "epoch_1.pth", needs_pools=True)["random_state"]["processes"]) == 1
    run_tool("tools/dist_test.sh", TINY, tmp_path / "epoch_1.pth", 1, "--work-dir", tmp_path, PORT=port)
    assert json.loads((tmp_path / "pool_results.json").read_text())["dataset_size"] == 48


# Waits


class CountWaits(Hook):
    """How often torch warns of a wait in each iteration, everything between two ends of iterations."""

    priority = "LOWEST"

    def __init__(self, caught: list) -> None:
        self.caught, self.counts = caught, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.counts.append([str(w.message) for w in self.caught if "synchroniz" in str(w.message).lower()])
        self.caught.clear()


def test_training_waits_only_for_its_logs(only_on_a_gpu, tmp_path):
    """What ``tests/engine/test_waits_on_fake_cuda.py`` finds without a GPU, as CUDA itself sees it."""
    options = [
        "train_cfg.max_epochs=1", "train_dataloader.pin_memory=True", "default_hooks.logger.interval=3",
        "experiment_name=waits",
    ]  # fmt: skip
    config = load_config(str(TINY), options, "none", str(tmp_path))
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    runner = build_runner(config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hook = CountWaits(caught)
        runner.register_hook(hook, priority="LOWEST")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            runner.train()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len(hook.counts) == 6
    # The first one starts cuDNN and fills caches; every third is logged.
    assert hook.counts[1] == hook.counts[3] == hook.counts[4] == [], hook.counts


# The runtime


def test_streams_of_their_own_do_not_disturb_each_other(device, trained, tmp_path):
    """Threads on streams of their own run and switch subnets, whose contiguous copies come and go meanwhile."""
    run_tool(
        "tools/export_subnets.py", TINY, trained / "epoch_3.pth", "--work-dir", tmp_path, "--out-dir", tmp_path / "out",
        "--formats", "bundle",
    )  # fmt: skip
    model = AdaptiveModel.load(tmp_path / "out" / "bundle.safetensors", device=device, working_copies=1)
    names = [subnet.name for subnet in model.subnets]
    assert len(names) > 3
    images = torch.randn(16, 3, 32, 32, device=device)
    expected = {}
    for name in names:
        model.use(name)
        expected[name] = model(images).clone()
    different, failed = [], []

    def call(start: int) -> None:
        try:
            stream = torch.cuda.stream(torch.cuda.Stream()) if device == "cuda" else contextlib.nullcontext()
            with stream:
                for number in range(60):
                    name = names[(start + number) % len(names)]
                    logits = model._run(model._index(name), images)
                    if not torch.allclose(logits, expected[name], rtol=1e-4, atol=1e-4):
                        different.append(name)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=call, args=(start,)) for start in range(2)]
    if device == "cuda":
        torch.cuda.synchronize()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and not different


# Tables and benchmarks


def test_latency_table(device, tmp_path):
    path = tmp_path / "table.json"
    config = ROOT / "configs" / "pss" / "pss_mbv2_flops_digits.py"
    run_tool("tools/latency/build_table.py", config, "--device", device, "--out", path, "--rounds", 3)
    table = LatencyTable.load(path)
    assert table.device == device and len(table.latencies_us) == 233
    assert all(0 < value < 1e5 for value in table.latencies_us.values())
    if device == "cuda":
        assert table.provenance["device_name"] == torch.cuda.get_device_name()
    done = run_tool("tools/latency/verify_table.py", config, path, "--subnets", 6, "--rounds", 3)
    assert "rank correlation" in done.stdout


def test_benchmark(device):
    """Every figure of ``benchmarks/gpu.py``, at a size that says nothing about speed."""
    batch, side = (16, 112) if device == "cuda" else (2, 56)
    figures = {f.name: f for f in gpu.measure(batch=batch, side=side, rounds=1, images=8, subnets=2, device=device)}
    assert figures["mbv2_float32_over_static"].value > 0 and figures["r50_bfloat16_over_static"].value > 0
    if device == "cuda":
        assert figures["mbv2_float32_synchronisations"].value == 0
        assert {"mbv2_float16_peak_memory", "mbv2_memory_over_largest"} <= figures.keys()
