from __future__ import annotations

import copy
import itertools
import json

import numpy as np
import pytest
import torch

from pss_razor.core import ConfigError, best_of_pools
from pss_razor.evaluation.calibration_images import load_calibration_batches
from pss_razor.evaluation.pool_evaluator import PoolEvaluator
from pss_razor.evaluation.random_state import get_random_state
from pss_razor.evaluation.results import format_table, read_criterion, read_document, read_results


@pytest.fixture
def evaluator(tested):
    """With the pools as they are after training, and two calibration batches."""
    return tested.test_loop.build_evaluator_of_pools()


def fill_pools(sampler, counts):
    """Pools of so many subnets each, from its own conditional distribution; scores 0, -1, … in a shuffled order."""
    generator = np.random.default_rng(0)
    for (metric, target), pool in sampler.pools.items():
        pool._entries.clear()
        pool.capacity = 10
        for attempt in itertools.count():
            if len(pool) == counts.get((metric, target), 0):
                break
            assert attempt < 1000
            indices, resources = sampler.conditional_samplers[metric].draw_many(target, 1, generator)
            subnet = sampler.space.decode(indices[0])
            if subnet not in pool:
                pool.update(subnet, -((len(pool) * 2 + 1) % 5), float(resources[0]))


def test_candidates(evaluator):
    counts = {("flops", 0.3): 1, ("flops", 0.5): 3, ("params", 0.21): 2}
    fill_pools(evaluator.sampler, counts)
    records = evaluator.candidates(top_k=2)
    space = evaluator.algorithm.space
    # Largest and smallest first; a pool with fewer than top_k entries gives what it has, an empty one nothing.
    names = ["largest", "smallest", "flops_0.3", "flops_0.5", "flops_0.5", "params_0.21", "params_0.21"]
    assert [record.name for record in records] == names
    assert [record.rank for record in records] == [None, None, 0, 0, 1, 0, 1]
    assert records[0].subnet == space.largest and records[1].subnet == space.smallest
    pool = evaluator.sampler.pools["flops", 0.5]
    best = sorted(pool, key=lambda entry: entry.score, reverse=True)[:2]
    assert [(r.subnet, r.score) for r in records[3:5]] == [(entry.subnet, entry.score) for entry in best]
    for record in records:
        encoded = space.encode([record.subnet])
        assert record.resources == {name: float(cost(encoded)[0]) for name, cost in evaluator.algorithm.costs.items()}


def test_metrics_equal_evaluating_each_subnet_alone(tested, evaluator, make_runner, tmp_path):
    records = evaluator.candidates(top_k=2)
    subnets = list(dict.fromkeys(record.subnet for record in records))
    assert len(subnets) >= 8
    measured = evaluator.evaluate(subnets, tested.test_dataloader, tested.test_evaluator, tested, "test")
    batches = load_calibration_batches(tested.train_dataloader, 2)
    # A plain loop on another model of the same weights: derived widths of a deep copy would follow the original's.
    algorithm = make_runner(tmp_path).model
    algorithm.load_state_dict(evaluator.algorithm.state_dict())
    norms = [m for m in algorithm.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for subnet, metrics in zip(subnets, measured, strict=True):
        algorithm.mutator.activate(subnet)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        with torch.no_grad():
            algorithm.train()
            for batch in batches:
                algorithm(algorithm.data_preprocessor(batch, False)["inputs"])
            algorithm.eval()
            top1 = top5 = 0
            for batch in tested.test_dataloader:
                data = algorithm.data_preprocessor(batch, False)
                labels = torch.cat([sample.gt_label.label for sample in data["data_samples"]])
                ranked = algorithm(data["inputs"]).argsort(1, descending=True)
                top1 += int((ranked[:, 0] == labels).sum())
                top5 += int((ranked[:, :5] == labels[:, None]).sum())
        assert metrics == pytest.approx({"accuracy/top1": top1 / 48 * 100, "accuracy/top5": top5 / 48 * 100}, abs=1e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_stated_number_of_calibration_batches(tested, evaluator, count, monkeypatch):
    evaluator = PoolEvaluator(evaluator.algorithm, evaluator.sampler, tested.train_dataloader, count)
    seen = []
    run_images = evaluator._run_images
    monkeypatch.setattr(evaluator, "_run_images", lambda batch: seen.append(batch) or run_images(batch))
    with evaluator.isolated():
        for subnet in (evaluator.algorithm.space.largest, evaluator.algorithm.space.smallest):
            evaluator.calibrate(subnet)
            norm = evaluator.algorithm.architecture.backbone.conv1.bn
            assert int(norm.num_batches_tracked) == count
    assert len(seen) == 2 * count
    # Read once and the same for every subnet.
    assert all(a is b for a, b in zip(seen[:count], seen[count:], strict=True))


def test_evaluation_leaves_everything_as_it_was(tested, evaluator, assert_same):
    algorithm = evaluator.algorithm
    algorithm.train()
    algorithm.mutator.activate(evaluator.candidates(1)[-1].subnet)
    active = algorithm.mutator.active_subnet
    before = copy.deepcopy((algorithm.state_dict(), get_random_state(), evaluator.sampler.state_dict()))
    modes = [module.training for module in algorithm.modules()]
    tested.test_loop.run()
    assert algorithm.mutator.active_subnet == active
    assert [module.training for module in algorithm.modules()] == modes
    assert_same(dict(before[0]), dict(algorithm.state_dict()))
    assert_same(before[1], get_random_state())
    assert_same(before[2], evaluator.sampler.state_dict())


def test_evaluation_that_fails_leaves_everything_as_it_was(tested, evaluator, monkeypatch, assert_same):
    algorithm = evaluator.algorithm.train()
    before = copy.deepcopy((algorithm.state_dict(), get_random_state()))
    active = algorithm.mutator.active_subnet

    def fail(data):
        raise ZeroDivisionError

    monkeypatch.setattr(PoolEvaluator, "_predict", staticmethod(fail))
    with pytest.raises(ZeroDivisionError):
        tested.test_loop.run()
    assert algorithm.training and algorithm.mutator.active_subnet == active
    assert_same(dict(before[0]), dict(algorithm.state_dict()))
    assert_same(before[1], get_random_state())


def test_same_subnet_in_two_pools_is_run_once(tested, evaluator, monkeypatch):
    sampler = evaluator.sampler
    fill_pools(sampler, {})
    space, costs = evaluator.algorithm.space, evaluator.algorithm.costs
    shared = {**space.largest, "resolution": 24}
    shared = type(space.largest)(shared)
    encoded = space.encode([shared])
    for metric, target in (("flops", 0.5), ("params", 0.25)):
        sampler.pools[metric, target].update(shared, -1.0, float(costs[metric](encoded)[0]))
    calls = []
    predict = PoolEvaluator._predict
    monkeypatch.setattr(PoolEvaluator, "_predict", lambda self, data: calls.append(1) or predict(self, data))
    metrics = tested.test_loop.run()
    assert len(calls) == 3 * len(tested.test_dataloader)  # largest, smallest, shared
    assert [record.name for record in tested.test_loop.results][2:] == ["flops_0.5", "params_0.25"]
    assert metrics["flops_0.5/accuracy/top1"] == metrics["params_0.25/accuracy/top1"]


def test_loops_return_metrics(tested, make_runner, straight, tmp_path):
    metrics = tested.test_loop.run()
    best = best_of_pools(tested.test_loop.results, tested.test_loop.criterion)
    for record in best:
        for name, value in record.metrics.items():
            assert metrics[f"{record.name}/{name}"] == value
    pools = [record.metrics["accuracy/top1"] for record in best[2:]]
    assert metrics["pools_mean/accuracy/top1"] == pytest.approx(sum(pools) / len(pools))
    assert len(metrics) == 2 * (len(best) + 1)

    runner = make_runner(tmp_path / "val", {"load_from": str(straight / "epoch_3.pth"), "val_cfg.top_k": 2})
    returned = runner.val()
    assert returned == metrics  # the same subnets, images and calibration
    assert make_runner(tmp_path / "again", {"load_from": str(straight / "epoch_3.pth")}).test() == metrics


@pytest.mark.slow
def test_subnets_are_chosen_on_selection_images_and_measured_on_test_images(make_runner, straight, tmp_path):
    paper = make_runner(tmp_path / "paper", {"load_from": str(straight / "epoch_3.pth")})
    paper.test()
    selection = copy.deepcopy(paper.cfg.test_dataloader)
    selection.dataset.update(split="train", indices=-60)
    test_cfg = {**paper.cfg.test_cfg, "selection_dataloader": selection}
    options = {"load_from": str(straight / "epoch_3.pth"), "test_cfg": test_cfg}
    runner = make_runner(tmp_path / "own", options)
    metrics = runner.test()
    results = runner.test_loop.results
    # What is measured on the test images is what the paper's protocol measures.
    assert [r.metrics for r in results] == [r.metrics for r in paper.test_loop.results]
    # What they are chosen by is what an evaluation on the other images measures.
    other = make_runner(tmp_path / "other", {"load_from": options["load_from"], "test_dataloader": selection})
    other.test()
    assert [r.selection_metrics for r in results] == [r.metrics for r in other.test_loop.results]
    assert any(r.selection_metrics != r.metrics for r in results)
    for key in {(r.metric, r.target) for r in results if r.metric}:
        members = [r for r in results if (r.metric, r.target) == key]
        chosen = max(members, key=lambda r: r.selection_metrics["accuracy/top1"])
        assert metrics[f"{key[0]}_{key[1]}/accuracy/top1"] == chosen.metrics["accuracy/top1"]
    documents = [read_document(r.test_loop.out_file) for r in (paper, runner)]
    assert documents[0]["selected_on"] == documents[0]["measured_on"] and "48 images" in documents[0]["measured_on"]
    assert documents[0]["protocol"].startswith("the paper's")
    assert documents[1]["measured_on"] == documents[0]["measured_on"] != documents[1]["selected_on"]
    assert "60 images" in documents[1]["selected_on"] and "split='train'" in documents[1]["selected_on"]
    read = read_results(runner.test_loop.out_file, runner.model.space)
    assert [r.selection_metrics for r in read] == [r.selection_metrics for r in results]


def test_what_decides_is_in_the_results(tested, tmp_path):
    tested.test_loop.run()
    document = read_document(tested.test_loop.out_file)
    assert document["decided_by"] == {"metric": "accuracy/top1", "rule": "greater"}
    assert read_criterion(document) == tested.test_loop.criterion
    del document["decided_by"]  # as version 0.1 wrote it
    assert read_criterion(document) == tested.test_loop.criterion
    with pytest.raises(ConfigError, match="decided_by = 'mAP'"):
        read_criterion({**document, "decided_by": {"metric": "mAP"}})
    with pytest.raises(ConfigError, match="says not what decides"):
        read_criterion({**document, "decided_by": 3})


def test_pools_are_all_empty(tested, evaluator):
    fill_pools(evaluator.sampler, {})
    metrics = tested.test_loop.run()
    assert set(metrics) == {f"{n}/accuracy/{k}" for n in ("largest", "smallest") for k in ("top1", "top5")}
    assert (tested.test_loop.out_file.parent / "accuracy_flops.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("key", ["top_k", "calibration_batches"])
def test_counts_below_one(make_runner, tmp_path, key):
    runner = make_runner(tmp_path, {f"test_cfg.{key}": 0})
    with pytest.raises(ConfigError, match=rf"{key} = 0.* must be at least 1"):
        runner.test()


# Results


def test_results_file_round_trip(tested):
    tested.test_loop.run()
    path = tested.test_loop.out_file
    records = read_results(path, tested.model.space)
    assert len(records) == len(tested.test_loop.results)
    for read, record in zip(records, tested.test_loop.results, strict=True):
        assert read == record
    document = json.loads(path.read_text())
    assert document["checkpoint"].endswith("epoch_3.pth") and document["dataset_size"] == 48
    assert document["units"] == {"flops": "MFLOPs", "params": "M params"}
    for metric in ("flops", "params"):
        assert (path.parent / f"accuracy_{metric}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_results_go_where_out_file_says(make_runner, straight, tmp_path):
    out = tmp_path / "new" / "folder" / "r.json"
    options = {"load_from": str(straight / "epoch_3.pth"), "test_cfg.out_file": str(out), "test_cfg.top_k": 1}
    make_runner(tmp_path / "work", options).test()
    assert sorted(path.name for path in out.parent.iterdir()) == ["accuracy_flops.png", "accuracy_params.png", "r.json"]
    assert not (tmp_path / "work" / "pool_results.json").exists()


def test_table(tested):
    tested.test_loop.run()
    best = best_of_pools(tested.test_loop.results, tested.test_loop.criterion)
    lines = format_table(best, tested.model.estimators).splitlines()
    assert lines[0].split() == ["pool", "MFLOPs", "M", "params", "resolution", "top1", "top5"]
    assert len(lines) == len(best) + 1 and len({len(line) for line in lines}) == 1
    assert lines[1].split()[:4] == ["largest", "0.747", "0.251", "32"]
    assert lines[3].split()[:2] == ["flops", str(best[2].target)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; pss-test"),
        (b"top1: 90", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"", "is not JSON"),
        (b"[1, 2]", "is not a results file"),
        (b'{"format": 2, "subnets": []}', "is not a results file"),
        (b'{"format": 1}', "is not a results file"),
        (b'{"format": 1, "subnets": [3]}', "is damaged: a subnet is 3 instead of a record"),
        (b'{"format": 1, "subnets": [{"name": "a", "resources": {}, "metrics": [1]}]}', "metrics of subnet 'a' is"),
        (
            b'{"format": 1, "subnets": [{"name": "a", "resources": {}, "channels": {"stem": 8}, "resolution": 32}]}',
            "another search space",
        ),
    ],
)
def test_bad_results_files(tested, tmp_path, content, message):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        read_results(path, tested.model.space)
    assert str(path) in str(error.value)
