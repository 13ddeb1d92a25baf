"""Two processes (gloo), compared with each other and with one process that does the work of both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmcls.structures import ClsDataSample
from mmengine.config import Config
from mmengine.registry import MODEL_WRAPPERS

# The fixture starts two processes, which takes about twenty seconds.
needs_two_processes = pytest.mark.slow


# Widths; ops, of which a step leaves some out; widths and depths, of which the smallest subnet leaves blocks out; two
# sampled subnets a step.
@pytest.fixture(
    scope="module", params=["tiny_supernet.py", "tiny_one_shot.py", "tiny_converted.py", "tiny_two_sampled.py"]
)
def tiny_config(request):
    return Path(__file__).parents[1] / "tiny" / request.param


@pytest.fixture(scope="module")
def ranks(tiny_config, tmp_path_factory):
    """What each of the two processes wrote down."""
    here = Path(__file__).parent
    work_dir = tmp_path_factory.mktemp("two_processes")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, here / "two_processes.py", tiny_config, work_dir]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(work_dir / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]


def test_the_shipped_wrapper_is_found_by_mmengine():
    config = Config.fromfile(Path(__file__).parents[2] / "configs" / "_base_" / "algorithms" / "pss.py")
    # What Runner.wrap_model does; without a class, every distributed training ends here.
    assert MODEL_WRAPPERS.get(config.model_wrapper_cfg.type).__name__ == "PSSDistributedDataParallel"


@needs_two_processes
def test_every_rank_has_the_same_subnet_and_its_own_images(ranks):
    first, second = (rank["iterations"] for rank in ranks)
    assert len(first) == len(second) == 12
    for a, b in zip(first, second, strict=True):
        assert a["subnets"] == b["subnets"]
        assert not torch.equal(a["batch"]["inputs"], b["batch"]["inputs"])
    assert len({tuple(subnet.items()) for iteration in first for subnet in iteration["subnets"]}) > 3


@needs_two_processes
def test_pools_and_draws_end_identical(ranks, assert_same):
    assert_same(ranks[0]["sampler"], ranks[1]["sampler"])
    assert any(pool for pools in ranks[0]["sampler"]["pools"].values() for pool in pools.values())


@needs_two_processes
def test_weights_end_identical(ranks, assert_same):
    assert_same(ranks[0]["parameters"], ranks[1]["parameters"])


@needs_two_processes
def test_one_step_and_one_exchange_an_iteration(ranks):
    # Three backward passes or more, but every gradient element goes over the network once.
    elements = sum(p.numel() for p in ranks[0]["parameters"].values())
    for rank in ranks:
        assert {(i["steps"], i["exchanged"]) for i in rank["iterations"]} == {(1, elements)}


@needs_two_processes
def test_the_cost_is_that_of_both(ranks):
    first, second = (rank["cost"] for rank in ranks)
    assert first == second and first["gmacs"] > 0
    assert (first["steps"], first["images"]) == (12, 12 * 16)


@needs_two_processes
def test_metrics_are_those_of_all_images_on_every_rank(ranks):
    assert ranks[0]["metrics"] == ranks[1]["metrics"]
    assert all((value * 48 / 100) == pytest.approx(round(value * 48 / 100), abs=1e-4)
               for name, value in ranks[0]["metrics"].items() if not name.startswith("pools_mean"))  # fmt: skip


@needs_two_processes
def test_equals_one_process_that_averages_the_halves(ranks, tiny_config, make_runner, get_sampler, tmp_path):
    runner = make_runner(tmp_path, {"train_cfg.max_epochs": 2}, tiny_config)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.call_hook("before_run")
    algorithm, sampler = runner.model.train(), get_sampler(runner)
    for module in algorithm.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    parameters = dict(algorithm.named_parameters())
    hook = next(hook for hook in runner.hooks if hasattr(hook, "sampler"))

    class WithoutStep:
        """An optimizer wrapper that adds up gradients."""

        optim_context = runner.optim_wrapper.optim_context

        def backward(self, loss):
            loss.backward()

        def step(self):
            pass

        def zero_grad(self):
            pass

    for index, halves in enumerate(zip(*(rank["iterations"] for rank in ranks), strict=True)):
        runner.train_loop._epoch = index // 6
        draws = [sampler.draw(*hook._scheduled(runner)) for _ in range(hook.num_sampled)]
        assert [dict(draw.subnet) for draw in draws] == halves[0]["subnets"], index
        if hook.smallest_resolution == "any":
            algorithm.smallest_subnet = sampler.draw_narrowest()
        # From the same weights every time: over several steps rounding grows to differences of any size.
        for name, parameter in parameters.items():
            parameter.data.copy_(halves[0]["before"][name])
            parameter.grad = None
        scores = []
        for half in halves:  # each with its own BN statistics
            samples = [ClsDataSample().set_gt_label(label) for label in half["batch"]["labels"]]
            algorithm.sampled_subnets = [draw.subnet for draw in draws]
            outputs = algorithm.train_step({"inputs": half["batch"]["inputs"], "data_samples": samples}, WithoutStep())
            torch.testing.assert_close(outputs["loss"], half["loss"], rtol=1e-5, atol=0)
            scores.append(outputs["score"].tolist())
        gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        assert gradients.keys() == halves[0]["gradients"].keys() == halves[1]["gradients"].keys()
        for name, gradient in gradients.items():
            exchanged = halves[0]["gradients"][name]
            error = (gradient / 2 - exchanged).abs().max() / exchanged.abs().max()
            assert error <= 1e-6, (index, name)
        for draw, of_halves in zip(draws, zip(*scores, strict=True), strict=True):
            sampler.update(draw, sum(of_halves) / 2)

    for metric, pools in sampler.state_dict()["pools"].items():
        for target, entries in pools.items():
            others = ranks[0]["sampler"]["pools"][metric][target]
            key = "ops" if tiny_config.stem == "tiny_one_shot" else "channels"
            assert [e[key] for e in entries] == [e[key] for e in others]
            assert [e["score"] for e in entries] == pytest.approx([e["score"] for e in others], abs=1e-5)
