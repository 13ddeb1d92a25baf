"""The evolution search: ranges, distinct candidates, resume, and what it leaves behind."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pss_razor.core import CheckpointError, ConfigError, UnreachableTargetError
from pss_razor.engine.launch import build_runner, load_config
from pss_razor.estimators import LatencyTable, read_cost_graph
from pss_razor.estimators.latency.measure import find_geometries
from pss_razor.evaluation.random_state import isolated_random_state
from pss_razor.registry import MODELS

from mmrazor.models.task_modules.predictor.handler import CartsHandler
from mmrazor.registry import sub_model

TINY = Path(__file__).parents[2] / "tiny" / "tiny_search.py"
RANGES = {"flops": (0.0, 0.75), "params": (0.041, 0.0415)}
_names = itertools.count()


def make_runner(work_dir, **options):
    """A runner of the tiny search; keys of ``train_cfg`` are given as ``max_epochs=2``."""
    config = load_config(str(TINY), None, "none", str(work_dir))
    config.experiment_name = f"test_search_{next(_names)}"
    for key, value in options.items():
        config.train_cfg[key] = value  # update() would merge dicts
    return build_runner(config)


def make_loop(work_dir, **options):
    """The search loop of :func:`make_runner`, not started."""
    return make_runner(work_dir, **options).train_loop


def read_state(path):
    return json.loads(Path(path).read_text())


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of four epochs: its runner, the supernet's state before it, and every candidate that it evaluated."""
    work_dir = tmp_path_factory.mktemp("search")
    runner = make_runner(work_dir, max_keep_ckpts=-1)
    before = {}
    evaluated = []
    loop = runner.train_loop
    evaluate = loop.update_candidates_scores

    def watch():
        before.update({k: v.clone() for k, v in runner.model.state_dict().items()} if not before else {})
        evaluated.append(list(loop.candidates.subnets))
        evaluate()

    loop.update_candidates_scores = watch
    runner.train()
    return runner, before, evaluated, work_dir


class TestSearch:
    def test_candidates_are_in_all_ranges_and_distinct(self, searched):
        runner, _, evaluated, _ = searched
        loop = runner.train_loop
        assert [len(epoch) for epoch in evaluated] == [6, 6, 6, 6]
        every = [subnet for epoch in evaluated for subnet in epoch]
        assert len({tuple(subnet.items()) for subnet in every}) == len(every)
        for metric, values in loop.sampler.resources(loop.space.encode(every)).items():
            assert RANGES[metric][0] <= values.min() and values.max() <= RANGES[metric][1]

    def test_later_epochs_have_children_of_the_best(self, searched):
        _, _, evaluated, work_dir = searched
        best = [record["ops"] for record in read_state(work_dir / "search_epoch_1.json")["top_k_candidates"]]
        for child in evaluated[1][:4]:
            shared = max(sum(child[place] == parent[place] for place in child) for parent in best)
            assert shared >= 3, "mutation changes one choice in ten, crossover mixes two parents"

    def test_scores_are_the_evaluators(self, searched):
        runner, _, _, work_dir = searched
        top = read_state(work_dir / "search_epoch_4.json")["top_k_candidates"]
        scores = [record["measured"]["score"] for record in top]
        assert len(top) == 3 and scores == sorted(scores, reverse=True)
        loop = runner.train_loop
        with loop.model.mutator.active(loop.space.from_record(top[0])):
            assert loop._val_candidate()["accuracy/top1"] == scores[0]

    def test_the_supernet_stays_as_it_was(self, searched, assert_same):
        runner, before, _, _ = searched
        assert any("running_mean" in name for name in before)
        assert_same(dict(runner.model.state_dict()), before)

    def test_the_yaml_loads_without_options(self, searched):
        runner, _, _, work_dir = searched
        content = yaml.safe_load((work_dir / "best_fix_subnet.yaml").read_text())
        best = read_state(work_dir / "search_epoch_4.json")["top_k_candidates"][0]
        assert {place: choice["chosen"] for place, choice in content.items()} == best["ops"]
        network = sub_model(runner.cfg.model.architecture, str(work_dir / "best_fix_subnet.yaml"))
        saved = torch.load(work_dir / "subnet_best.pth", weights_only=True)
        network.load_state_dict(saved["state_dict"])
        algorithm = runner.model  # whose train() and eval() return None
        algorithm.norm_training = False
        algorithm.eval()
        network.eval()
        images = torch.randn(4, 3, 32, 32)
        with torch.no_grad(), algorithm.mutator.active(algorithm.mutator.space.from_record(best)):
            torch.testing.assert_close(network(images), algorithm(images))
        assert saved["meta"]["ops"] == best["ops"] and saved["meta"]["flops"] == best["measured"]["flops"]

    def test_a_single_check_is_that_of_all(self, searched):
        loop = searched[0].train_loop
        for row in np.random.default_rng(0).integers(4, size=(50, 5)):
            accepted, resources = loop._check_constraints(loop.space.decode(row))
            assert accepted == all(RANGES[m][0] <= value <= RANGES[m][1] for m, value in resources.items())


class TestResume:
    @pytest.mark.parametrize("epoch", [1, 3])
    def test_equals_a_search_that_never_stopped(self, searched, tmp_path, epoch):
        work_dir = searched[3]
        runner = make_runner(tmp_path, resume_from=str(work_dir / f"search_epoch_{epoch}.json"), max_keep_ckpts=-1)
        # other weights would give other scores
        runner.model.load_state_dict(searched[0].model.state_dict())
        runner.model._is_init = True
        runner._init_model_weights = lambda: None
        runner.train()
        assert runner.train_loop.epoch == 4
        assert {p.name for p in tmp_path.glob("search_epoch_*")} == {
            f"search_epoch_{e}.json" for e in range(epoch + 1, 5)
        }
        assert read_state(tmp_path / "search_epoch_4.json") == read_state(work_dir / "search_epoch_4.json")
        assert (tmp_path / "best_fix_subnet.yaml").read_text() == (work_dir / "best_fix_subnet.yaml").read_text()

    def test_auto_takes_the_newest(self, searched, tmp_path):
        shutil.copy(searched[3] / "search_epoch_4.json", tmp_path)
        shutil.copy(searched[3] / "search_epoch_2.json", tmp_path)
        loop = make_loop(tmp_path, resume_from="auto")
        loop._resume()
        assert loop.epoch == 4 and len(loop.top_k_candidates) == 3

    def test_auto_without_a_file_starts(self, tmp_path):
        loop = make_loop(tmp_path, resume_from="auto")
        loop._resume()
        assert loop.epoch == 0 and not loop.candidates

    def test_other_ranges_are_refused(self, searched, tmp_path):
        path = str(searched[3] / "search_epoch_2.json")
        loop = make_loop(tmp_path, resume_from=path, constraints_range=dict(flops=(0, 0.74)))
        with pytest.raises(CheckpointError, match=r"search_epoch_2.json is no state of this search.*of the ranges"):
            loop._resume()

    @pytest.mark.parametrize("content", ["", "[1]", "{}", '{"epoch": 1}'])
    def test_a_damaged_file_is_refused(self, tmp_path, content):
        (tmp_path / "search_epoch_2.json").write_text(content)
        loop = make_loop(tmp_path, resume_from="auto")
        with pytest.raises(CheckpointError, match="is no state of this search"):
            loop._resume()

    def test_old_states_are_removed(self, searched, tmp_path):
        loop = make_loop(tmp_path, max_keep_ckpts=2)
        loop.candidates, loop.top_k_candidates = (searched[0].train_loop.top_k_candidates,) * 2
        for loop._epoch in range(1, 13):
            loop._save_searcher_ckpt()
        assert {path.name for path in tmp_path.glob("search_epoch_*")} == {
            "search_epoch_11.json",
            "search_epoch_12.json",
        }


def test_a_range_with_few_subnets_ends_with_them(tmp_path):
    loop = make_loop(tmp_path)
    resources = np.sort(loop.sampler.costs["flops"](loop.space.enumerate()))
    runner = make_runner(tmp_path, constraints_range=dict(flops=(0, float(resources[7]))), max_epochs=3)
    runner.train()
    assert len(runner.train_loop._known) == 8
    assert len(read_state(tmp_path / "search_epoch_3.json")["top_k_candidates"]) == 3


@pytest.mark.slow
def test_a_latency_range(tmp_path):
    """A table of made-up latencies: what counts is that the range of them is kept."""
    algorithm = make_runner(tmp_path).model
    graph = read_cost_graph(algorithm.architecture, algorithm.mutator.space, algorithm.mutator.active, input_size=32)
    latencies = {g: 1.0 + g.cin + (g.kernel_size or 0) for g in find_geometries(graph)}
    LatencyTable(latencies, "cpu", {"made_up": True}).save(tmp_path / "table.json")
    estimator = dict(type="LatencyEstimator", table=str(tmp_path / "table.json"), device="cpu")
    config = dict(type="OneShotResourceEstimator", input_size=32, estimators=dict(latency_cpu=estimator))
    everything = (0.0, 1e6)
    loop = make_loop(tmp_path, estimator_cfg=config, constraints_range=dict(latency_cpu=everything))
    low, high = np.quantile(loop.sampler.costs["latency_cpu"](loop.space.enumerate()), [0.1, 0.3])
    ranges = dict(latency_cpu=(float(low), float(high)), flops=(0.0, 0.76))
    loop = make_loop(tmp_path, estimator_cfg=config, constraints_range=ranges)
    loop.sample_candidates()
    resources = loop.sampler.resources(loop.space.encode(loop.candidates.subnets))
    assert len(loop.candidates) == 6
    assert (resources["latency_cpu"] >= low).all() and (resources["latency_cpu"] <= high).all()
    assert (resources["flops"] <= 0.76).all()


def test_calibrated_statistics_are_those_of_training_images(tmp_path, assert_same):
    runner = make_runner(tmp_path, calibrate_sample_num=32, max_epochs=1)
    loop = runner.train_loop
    runner.model.norm_training = False
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    loop.model.mutator.set_choices(dict(loop.space.smallest))
    first = loop._val_candidate()
    assert_same(dict(runner.model.state_dict()), before)
    assert sum(len(batch["inputs"]) for batch in loop._calibration_batches) == 32
    # the largest statistics of the stem's BN are those of its inputs
    loop.calibrate_bn_statistics(None, 32)
    bn = runner.model.architecture.backbone.conv1.bn
    inputs = [runner.model.data_preprocessor(batch, False)["inputs"] for batch in loop._calibration_batches]
    means = [runner.model.architecture.backbone.conv1.conv(images).mean((0, 2, 3)) for images in inputs]
    torch.testing.assert_close(bn.running_mean, torch.stack(means).mean(0))
    assert loop._val_candidate() == first


CARTS = dict(type="MetricPredictor", handler_cfg=dict(type="CartsHandler", num_trees=20), train_samples=12)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A search of three epochs with a predictor, and the subnets that it evaluated."""
    work_dir = tmp_path_factory.mktemp("predicted")
    runner = make_runner(work_dir, max_keep_ckpts=-1, max_epochs=3, predictor_cfg=CARTS)
    loop, evaluated = runner.train_loop, []
    evaluate = loop._val_candidate

    def watch(*args):
        evaluated.append(dict(loop.model.mutator.active_subnet))
        return evaluate(*args)

    loop._val_candidate = watch
    runner.train()
    return runner, evaluated, work_dir


class TestPredictor:
    def test_only_samples_and_the_last_best_are_evaluated(self, predicted):
        runner, evaluated, work_dir = predicted
        state = read_state(work_dir / "search_epoch_0.json")
        assert state["epoch"] == 0 and state["candidates"] == []
        assert [record["ops"] for record in state["samples"]] == evaluated[:12]
        assert len({tuple(subnet.items()) for subnet in evaluated[:12]}) == 12
        best = read_state(work_dir / "search_epoch_3.json")["top_k_candidates"]
        assert evaluated[12:] == [record["ops"] for record in best] and len(best) == 3
        resources = runner.train_loop.sampler.resources(runner.train_loop.space.encode(evaluated))
        for metric, (low, high) in RANGES.items():
            assert low <= resources[metric].min() and resources[metric].max() <= high

    def test_scores_are_those_of_the_handler(self, predicted):
        """Against MMRazor's trees on one-hot vectors made by hand."""
        runner, _, work_dir = predicted
        state = read_state(work_dir / "search_epoch_3.json")
        kinds = [dimension.values for dimension in runner.train_loop.space.dimensions]

        def one_hot(records):
            return np.array(
                [
                    [
                        float(op == kind)
                        for op, choices in zip(record["ops"].values(), kinds, strict=True)
                        for kind in choices
                    ]
                    for record in records
                ]
            )

        samples = state["samples"]
        with isolated_random_state(runner.seed):
            handler = CartsHandler(num_trees=20)
            handler.fit(one_hot(samples), np.array([record["measured"]["score"] for record in samples]))
        top = state["top_k_candidates"]
        predictions = handler.predict(one_hot(top))[:, 0]
        assert [record["measured"]["score"] for record in top] == predictions.tolist()
        assert predictions.tolist() == sorted(predictions, reverse=True)

    def test_the_result_is_the_best_by_evaluation(self, predicted):
        runner, evaluated, work_dir = predicted
        meta = torch.load(work_dir / "subnet_best.pth", weights_only=True)["meta"]
        loop, scores = runner.train_loop, []
        for subnet in evaluated:
            loop.model.mutator.set_choices(subnet)
            scores.append(super(type(loop), loop)._val_candidate()["accuracy/top1"])
        assert meta["score"] == max(scores)
        assert meta["ops"] in [subnet for subnet, score in zip(evaluated, scores, strict=True) if score == max(scores)]

    @pytest.mark.parametrize("epoch", [0, 2])
    def test_resumed_equals_never_stopped(self, predicted, tmp_path, epoch):
        work_dir = predicted[2]
        options = dict(max_keep_ckpts=-1, max_epochs=3, predictor_cfg=CARTS)
        runner = make_runner(tmp_path, resume_from=str(work_dir / f"search_epoch_{epoch}.json"), **options)
        runner.model.load_state_dict(predicted[0].model.state_dict())
        runner._init_model_weights = lambda: None
        evaluated = []
        evaluate = runner.train_loop._evaluate
        runner.train_loop._evaluate = lambda *args: evaluated.append(len(args[0])) or evaluate(*args)
        np.random.seed(99)  # trees are drawn from the search's seed
        runner.train()
        assert evaluated == [3], "the samples are those of the state"
        assert read_state(tmp_path / "search_epoch_3.json") == read_state(work_dir / "search_epoch_3.json")
        assert (tmp_path / "best_fix_subnet.yaml").read_text() == (work_dir / "best_fix_subnet.yaml").read_text()

    def test_a_state_of_another_predictor_is_refused(self, searched, predicted, tmp_path):
        loop = make_loop(tmp_path, predictor_cfg=dict(CARTS, handler_cfg=dict(type="CartsHandler", num_trees=10)))
        for work_dir in (searched[3], predicted[2]):
            loop.resume_from = str(work_dir / "search_epoch_2.json")
            with pytest.raises(CheckpointError, match="is no state of this search: it is of the predictor"):
                loop._resume()

    def test_samples_of_a_file(self, predicted, tmp_path):
        path = predicted[2] / "search_epoch_1.json"
        loop = make_loop(tmp_path, predictor_cfg=dict(CARTS, train_samples=str(path)))
        loop._evaluate = None
        loop._fit_predictor(loop.predictor)
        assert read_state(tmp_path / "search_epoch_0.json")["samples"] == read_state(path)["samples"]
        for content in ("", "{}", '{"samples": []}', '{"samples": [{"ops": {}}]}'):
            (tmp_path / "a.json").write_text(content)
            with pytest.raises(CheckpointError, match=r"train_samples = .*a\.json has"):
                loop._read_samples(tmp_path / "a.json")


class TestErrors:
    def test_an_unmeasured_metric(self, tmp_path):
        with pytest.raises(ConfigError, match="'latency' is asked for, which is not measured"):
            make_loop(tmp_path, constraints_range=dict(flops=(0, 0.8), latency=(0, 10)))

    def test_a_range_out_of_reach(self, tmp_path):
        with pytest.raises(UnreachableTargetError, match=r"no subnet has flops from 0 to 0.1: the search space covers"):
            make_loop(tmp_path, constraints_range=dict(flops=0.1))

    def test_mmrazors_estimator(self, tmp_path):
        with pytest.raises(ConfigError, match=r"is a ResourceEstimator, which counts one subnet at a time"):
            make_loop(tmp_path, estimator_cfg=dict(type="ResourceEstimator"))

    def test_more_children_than_candidates(self, tmp_path):
        with pytest.raises(ConfigError, match=r"num_mutation \+ num_crossover = 12 is more than num_candidates = 6"):
            make_loop(tmp_path, num_mutation=10)

    def test_an_unknown_score(self, tmp_path):
        with pytest.raises(ConfigError, match=r"score_key = 'top1' is no metric; the evaluator has.*accuracy/top1"):
            make_runner(tmp_path, score_key="top1").train()

    def test_mmrazors_mutator(self, tmp_path):
        config = load_config(str(TINY), None, "none", str(tmp_path))
        config.model.mutator = dict(type="NasMutator")
        config.experiment_name = f"test_search_{next(_names)}"
        with pytest.raises(ConfigError, match=r"model.mutator is a NasMutator; the search needs a SubnetMutator"):
            build_runner(config).train()

    def test_a_checkpoint_of_another_supernet(self, tmp_path):
        config = load_config(str(TINY), None, "none", str(tmp_path))
        config.experiment_name = f"test_search_{next(_names)}"
        other = MODELS.build(dict(config.model.architecture, head=dict(config.model.architecture.head, num_classes=7)))
        torch.save({"state_dict": {f"architecture.{k}": v for k, v in other.state_dict().items()}}, tmp_path / "a.pth")
        config.load_from = str(tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match="another number of classes"):
            build_runner(config).train()
