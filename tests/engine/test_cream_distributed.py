"""Two processes search as one that averages the halves of its batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from pss_razor.core import Subnet
from pss_razor.engine.launch import load_config
from pss_razor.models.algorithms.cream import batch_statistics
from pss_razor.registry import MODELS

from mmcls.structures import ClsDataSample

TINY = Path(__file__).parents[1] / "tiny" / "tiny_cream.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two processes wrote down."""
    work_dir = tmp_path_factory.mktemp("two_processes")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, Path(__file__).with_name("two_processes_cream.py"), TINY, work_dir]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (work_dir / "best_fix_subnet.yaml").is_file() and (work_dir / "epoch_2.pth").is_file()
    return [torch.load(work_dir / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture
def algorithm(ranks):
    return MODELS.build(load_config(str(TINY), None, "none", "unused").model).train()


def test_paths_boards_and_weights_agree(ranks, assert_same):
    first, second = (rank["iterations"] for rank in ranks)
    assert len(first) == len(second) == 12
    for a, b in zip(first, second, strict=True):
        assert a["path"] == b["path"] and not torch.equal(a["inputs"], b["inputs"])
    for part in ("board", "generator", "parameters"):
        assert_same(ranks[0][part], ranks[1][part], part)
    assert len(ranks[0]["board"]) == 3 and any(a["meta_update"] for a in first)


def test_the_accuracy_of_the_board_is_that_of_all_processes(ranks):
    pairs = [tuple(rank["iterations"][i]["accuracy"] for rank in ranks) for i in range(12)]
    means = {(a + b) / 2 for a, b in pairs[6:]}
    assert {entry["accuracy"] for entry in ranks[0]["board"]} <= means
    assert any(a != b for a, b in pairs[6:])


def test_gradients_are_averaged(ranks, algorithm):
    for index in range(6):  # the epoch without teachers
        halves = [rank["iterations"][index] for rank in ranks]
        algorithm.load_state_dict(halves[0]["before"])
        algorithm.mutator.activate(Subnet(halves[0]["path"]))
        algorithm.zero_grad()
        for half in halves:
            samples = [ClsDataSample().set_gt_label(label) for label in half["labels"]]
            inputs = algorithm.data_preprocessor({"inputs": half["inputs"], "data_samples": samples}, True)["inputs"]
            logits = algorithm.architecture(inputs, mode="tensor")
            (algorithm.architecture.head._get_loss(logits, samples)["loss"] / 2).backward()
        for name, parameter in algorithm.named_parameters():
            exchanged = halves[0]["gradients"].get(name)
            assert (exchanged is None) == (parameter.grad is None), name
            if exchanged is not None:
                error = (parameter.grad - exchanged).abs().max()
                assert error <= 1e-4 * max(float(exchanged.abs().max()), 1e-3), (index, name, error)


def test_the_meta_gradient_is_that_of_the_averaged_objective(ranks, algorithm):
    """One graph from the matching layer through the averaged step to the averaged loss."""
    halves = [rank["meta"] for rank in ranks]
    # In float32 as the processes do: rounding of BN over three images is a per cent of the gradient.
    algorithm.load_state_dict(halves[0]["state"])
    rate, count = halves[0]["learning_rate"], algorithm.slice_size
    path = Subnet(halves[0]["path"])
    parameters = dict(algorithm.architecture.named_parameters())

    def run(images, subnet, weights=None):
        with algorithm.mutator.active(subnet), batch_statistics(algorithm):
            return functional_call(algorithm.architecture, weights or {}, (images,), {"mode": "tensor"})

    def label_loss(logits, labels):
        return F.cross_entropy(logits, labels, label_smoothing=0.1)

    board = halves[0]["board"]
    stored = torch.cat([entry["images"] for entry in board])
    probabilities = run(stored, path).softmax(1).detach().split(count)
    weights = torch.cat(
        [algorithm.matching((p - e["targets"]).flatten()) for p, e in zip(probabilities, board, strict=True)]
    )
    teacher, rho = board[int(weights.argmax())], torch.sigmoid(-weights.max())
    sums = {}
    for half in halves:
        images, labels = half["inputs"], half["labels"]
        student = run(images[:count], path)
        soft = run(images[:count], Subnet(teacher["path"])).softmax(1).detach()
        loss = (rho * F.cross_entropy(student, soft) + (2 - rho) * label_loss(student, labels[:count])) / 2
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True, allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                sums[name] = sums.get(name, 0) + gradient / 2
    simulated = {name: parameters[name].detach() - rate * gradient for name, gradient in sums.items()}
    validation = sum(
        label_loss(run(half["inputs"][count : 2 * count], path, simulated), half["labels"][count : 2 * count]) / 2
        for half in halves
    )
    expected = torch.autograd.grad(validation, list(algorithm.matching.parameters()))
    recorded = halves[0]["gradients"]
    assert {name for name in recorded if name.startswith("architecture.")} == {f"architecture.{n}" for n in sums}
    for (name, _), value in zip(algorithm.matching.named_parameters(), expected, strict=True):
        own = recorded[f"matching.{name}"]
        assert torch.equal(recorded[f"matching.{name}"], halves[1]["gradients"][f"matching.{name}"])
        assert (own - value).abs().max() <= 1e-3 * value.abs().max(), (name, own, value)
