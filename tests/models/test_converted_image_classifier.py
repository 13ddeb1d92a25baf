"""A network of torchvision's through training, evaluation, export and resume."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from small_network import small_supernet
from torch import nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlockConfig

from pss_razor.conversion.layers import PartialConv2d
from pss_razor.core import ConfigError, ExportError
from pss_razor.core.sampling.build_conditional_sampler import build_conditional_sampler
from pss_razor.deploy import load_subnet, read_manifest
from pss_razor.deploy.bundle import load_bundle
from pss_razor.engine.launch import load_config
from pss_razor.estimators import LatencyTable
from pss_razor.evaluation.bn_calibration import calibrate_bn, get_bn_statistics, set_bn_statistics
from pss_razor.export.exporter import export_subnets
from pss_razor.models import LeanReLU6, SubnetMutator
from pss_razor.models.backbones.converted_network import build_network
from pss_razor.models.static_subnet import WithoutResize, static_subnet
from pss_razor.registry import MODELS
from pss_razor.static import trace_static

from mmcls.structures import ClsDataSample
from mmengine.optim import OptimWrapper

TINY = Path(__file__).resolve().parents[1] / "tiny" / "tiny_converted.py"
CLASSIFIER = dict(type="ConvertedImageClassifier", network=dict(type="torchvision.resnet18", num_classes=7))


def seeded_network(**options):
    """Has the same weights whenever it is built, as a trained one, and is as sure of its classes."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = torchvision.models.mobilenet_v3_small(**options)
    network.classifier[3].weight.data *= 300
    return network


def build(**options):
    torch.manual_seed(0)
    return MODELS.build({**CLASSIFIER, **options})


@pytest.fixture(scope="module")
def algorithm():
    torch.manual_seed(0)
    config = load_config(str(TINY), None, "none", None)
    return MODELS.build(config.model)


class TestClassifier:
    def test_the_largest_subnet_is_the_network(self, algorithm):
        torch.manual_seed(0)
        network = torchvision.models.mobilenet_v3_small(width_mult=0.25, num_classes=10).eval()
        images = torch.randn(2, 3, 32, 32)
        algorithm.eval()
        with torch.no_grad():
            expected, logits = network(images), algorithm(images)
        assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()  # its channels are sorted

    def test_dimensions_are_those_of_the_conversion(self, algorithm):
        supernet = algorithm.architecture.backbone.supernet
        own = {d.name: d for d in algorithm.space.dimensions}
        assert own.keys() == {d.name for d in supernet.space.dimensions}
        for dimension in supernet.space.dimensions:
            assert own[dimension.name].values == dimension.values and own[dimension.name].kind == dimension.kind

    def test_costs(self, algorithm):
        """By the mutator's space, in the order of its own."""
        supernet = algorithm.architecture.backbone.supernet
        generator = np.random.default_rng(0)
        subnets = [algorithm.space.decode(generator.integers(algorithm.space.shape)) for _ in range(20)]
        for metric in ("flops", "params"):
            expected = supernet.costs[metric](supernet.space.encode(subnets))
            np.testing.assert_allclose(algorithm.costs[metric](algorithm.space.encode(subnets)), expected, rtol=1e-12)

    def test_the_mutator_switches_the_network(self, algorithm):
        supernet = algorithm.architecture.backbone.supernet
        images = torch.randn(2, 3, 32, 32)
        algorithm.eval()
        with algorithm.mutator.active(algorithm.space.smallest), torch.no_grad():
            logits = algorithm(images)
            with supernet.active(supernet.space.smallest):
                assert torch.equal(supernet(images), logits)

    def test_other_classes(self):
        classifier = build(network=dict(type="torchvision.resnet18"), num_classes=3, input_size=64)
        assert classifier.head.num_classes == 3
        assert classifier(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
        squeeze = build(network=dict(type="torchvision.squeezenet1_1"), num_classes=4, input_size=64)
        assert squeeze(torch.zeros(2, 3, 64, 64)).shape == (2, 4)

    def test_the_conversion_is_told(self):
        classifier = build(resolutions=[32, 64], width_range=(0.75, 1.0), depth=False)
        summary = classifier.backbone.supernet.summary()
        assert "layer4.1.conv1 (channels)" in summary and "depth0" not in summary

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (dict(network=dict(type="torchvision.resnet81"), input_size=32), "'torchvision.resnet81' is not found"),
            (
                dict(network=dict(type="nowhere.build"), input_size=32),
                "torchvision.NAME, timm.NAME or package.function",
            ),
            (dict(network=dict(type="torchvision.resnet18", layers=3), input_size=32), "cannot be built with"),
            (dict(), "give resolutions, or input_size"),
            (dict(input_size=32, width_range=(0.0, 1.0)), "width_range"),
        ],
    )
    def test_bad_configs(self, options, message):
        with pytest.raises(ConfigError, match=message):
            build(**options)

    def test_of_a_supernet(self, capfd):
        """It is the one that is given, with all its dimensions; building logs nothing."""
        supernet = small_supernet(num_classes=7)
        classifier = build(network=supernet)
        assert classifier.backbone.supernet is supernet and classifier.head.num_classes == 7
        mutator = SubnetMutator()
        mutator.prepare_from_supernet(classifier)
        assert set(mutator.space.names) == set(supernet.space.names)
        images = torch.randn(2, 3, 16, 16)
        classifier.eval()
        with torch.no_grad(), mutator.active(mutator.space.smallest):
            logits = classifier(images)
            with supernet.active(supernet.space.smallest):
                assert torch.equal(supernet(images), logits)
        captured = capfd.readouterr()
        assert classifier.summary() == supernet.summary() and "searched" not in captured.out + captured.err

    def test_relu6_is_the_lean_one_until_it_is_static(self):
        classifier = build(network=dict(type="torchvision.mobilenet_v2", num_classes=3), input_size=32)
        torch.manual_seed(0)
        network = torchvision.models.mobilenet_v2(num_classes=3).eval()
        images = torch.randn(2, 3, 32, 32)
        found = [module for module in classifier.modules() if isinstance(module, nn.ReLU6)]
        assert len(found) == 35 and all(type(module) is LeanReLU6 for module in found)
        with torch.no_grad():
            assert torch.equal(classifier.eval()(images), network(images))
        static = trace_static(WithoutResize(classifier), 32)
        assert not any(isinstance(module, LeanReLU6) for module in static.modules())
        supernet = classifier.backbone.supernet
        assert not any(isinstance(module, LeanReLU6) for module in supernet.static(supernet.space.smallest).modules())

    def test_a_function_of_ones_own(self):
        config = dict(type="torchvision.models.resnet.resnet18", num_classes=2)
        assert build_network(config).fc.out_features == 2


class TestLatency:
    """With a table of the numbers of pixels and channels; what is measured is tested with the tools."""

    @pytest.fixture(scope="class")
    def table(self, algorithm, tmp_path_factory):
        path = tmp_path_factory.mktemp("table") / "table.json"
        geometries = algorithm.cost_graph.geometries
        LatencyTable({g: g.in_size + sum(g.widths) * 0.25 for g in geometries}, "cpu").save(path)
        return path

    def build(self, name, table):
        config = load_config(str(name), None, "none", None)
        config.model.estimators = dict(latency_cpu=dict(type="LatencyEstimator", table=str(table), device="cpu"))
        config.model.constraints = [dict(metric="latency_cpu", num_targets=3)]
        torch.manual_seed(0)
        return MODELS.build(config.model)

    def test_constraints(self, table):
        algorithm = self.build(TINY, table)
        (constraint,) = algorithm.constraints
        cost = algorithm.costs["latency_cpu"]
        sampler = build_conditional_sampler(cost, constraint)
        for index, target in enumerate(constraint.targets):
            subnets, _ = sampler.draw_many(target, 20, np.random.default_rng(0))
            assert (constraint.nearest_target_index(cost(subnets)) == index).all()

    def test_a_network_that_cannot_be_exported_can_be_measured(self):
        """ConvNeXt has layer norms and scales, which static networks of exports have not."""
        classifier = build(network=dict(type="torchvision.convnext_tiny", num_classes=3), input_size=32).eval()
        mutator = SubnetMutator()
        mutator.prepare_from_supernet(classifier)
        subnet = mutator.space.smallest
        network, images = static_subnet(classifier, mutator, subnet, "cpu", 2, 32)
        with torch.no_grad(), mutator.active(subnet):
            assert torch.equal(network(images), classifier(images))
        assert sum(tensor.numel() for tensor in network.parameters()) < sum(p.numel() for p in classifier.parameters())

    def test_the_table_of_another_network(self, table):
        with pytest.raises(ConfigError, match=r"table\.json: the latency table lacks 233 blocks of this search space"):
            self.build(TINY.parents[2] / "configs" / "pss" / "pss_mbv2_flops_digits.py", table)

    def test_a_damaged_table(self, table, tmp_path):
        document = json.loads(table.read_text())
        removed = document["rows"].pop(7)
        (tmp_path / "damaged.json").write_text(json.dumps(document))
        with pytest.raises(
            ConfigError, match=rf"lacks 1 blocks of this search space, the first is block.*{removed[0]}"
        ):
            self.build(TINY, tmp_path / "damaged.json")


class TestStatistics:
    def test_of_concatenations_go_back(self):
        """The active channels of a norm after a concatenation are no single view."""
        classifier = build(network=dict(type="torchvision.densenet121", num_classes=3), input_size=32, depth=False)
        supernet = classifier.backbone.supernet
        classifier.backbone.on_activate(supernet.space.smallest)
        images = torch.randn(4, 3, 32, 32)
        calibrate_bn(classifier, [images], classifier)
        found = get_bn_statistics(classifier)
        assert any(len(m.outputs.ranges) > 1 for m in classifier.modules() if hasattr(m, "set_statistics"))
        classifier.eval()
        with torch.no_grad():
            expected = classifier(images)
            set_bn_statistics(classifier, [(torch.zeros_like(mean), torch.ones_like(var)) for mean, var in found])
            assert not torch.equal(classifier(images), expected)
            set_bn_statistics(classifier, found)
            assert torch.equal(classifier(images), expected)


class TestOriginalTeacher:
    """``teacher="original"``: the network before training teaches the sampled and the smallest subnet."""

    @pytest.fixture
    def algorithm(self):
        torch.manual_seed(0)
        network = f"model.architecture.network.type={__name__}.seeded_network"
        options = ["model.teacher=original", network, "model.architecture.network.dropout=0"]
        config = load_config(str(TINY), options, "none", None)
        return MODELS.build(config.model)

    @pytest.fixture
    def batch(self):
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(256, (6, 3, 32, 32), generator=generator, dtype=torch.uint8)
        samples = [ClsDataSample().set_gt_label(n) for n in range(6)]
        return {"inputs": list(images), "data_samples": samples}

    def test_losses_are_against_its_logits(self, algorithm, batch):
        network = seeded_network(width_mult=0.25, num_classes=10).eval()
        with torch.no_grad():  # what training has made of the supernet does not change the teacher
            for parameter in algorithm.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape))
        subnet = algorithm.space.decode(np.array(algorithm.space.shape) // 2)
        inputs = algorithm.data_preprocessor(copy.deepcopy(batch), True)["inputs"]
        taught = F.softmax(network(inputs).detach().double(), 1)
        twin = copy.deepcopy(algorithm).train()
        expected = {}
        for name, own in (("largest", twin.space.largest), ("sampled", subnet), ("smallest", twin.space.smallest)):
            twin.mutator.activate(own)
            with torch.no_grad():
                logits = twin(inputs).double()
            log_probabilities = F.log_softmax(logits, 1)
            expected[f"{name}_kl"] = float((taught * (taught.log() - log_probabilities)).sum(1).mean())
            expected[f"{name}_ce"] = float(-log_probabilities[torch.arange(6), torch.arange(6)].mean())
        algorithm.sampled_subnet = subnet
        optimizer = OptimWrapper(torch.optim.SGD(algorithm.parameters(), lr=0.1))
        logged = algorithm.train().train_step(batch, optimizer)
        for name in ("largest_ce", "sampled_kl", "smallest_kl"):
            assert float(logged[name]) == pytest.approx(expected[name], rel=1e-4)
        assert float(logged["score"]) == pytest.approx(-expected["sampled_ce"], rel=1e-4)
        largest, smallest = algorithm.space.largest, algorithm.space.smallest
        assert algorithm.passes_of_step == [(largest, 3), (largest, 1), (subnet, 3), (smallest, 3)]

    def test_it_is_no_part_of_a_checkpoint(self, algorithm):
        config = load_config(str(TINY), None, "none", None)
        assert algorithm.state_dict().keys() == MODELS.build(config.model).state_dict().keys()

    def test_it_moves_along_and_stays_in_evaluation_mode(self, algorithm):
        algorithm.double().train()
        teacher = algorithm.__dict__["_original"]
        assert not teacher.training
        assert {p.dtype for p in teacher.parameters()} == {torch.float64}
        assert not any(p.requires_grad for p in teacher.parameters())

    @pytest.mark.parametrize(("config", "teacher", "message"), [
        (TINY, "smallest", r"teacher = 'smallest' is not known; choose from \['largest', 'original', 'average'\]"),
        (TINY.with_name("tiny_supernet.py"), "original", "a SlimmableImageClassifier starts from nothing"),
    ])  # fmt: skip
    def test_errors(self, config, teacher, message):
        config = load_config(str(config), [f"model.teacher={teacher}"], "none", None)
        with pytest.raises(ConfigError, match=message):
            MODELS.build(config.model)


@pytest.fixture(scope="module")
def work_dir(make_runner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    make_runner(folder, {}, TINY).train()
    return folder


@pytest.mark.slow
class TestTraining:
    def test_resumed_equals_never_stopped(self, make_runner, work_dir, tmp_path, assert_same_training):
        start = {"load_from": str(work_dir / "epoch_1.pth"), "resume": True}
        make_runner(tmp_path, start, TINY).train()
        assert_same_training(work_dir / "epoch_2.pth", tmp_path / "epoch_2.pth")

    def test_a_training_taught_by_the_original_is_resumed(self, make_runner, tmp_path, assert_same_training):
        """Its teacher is made anew of the network's weights, not of the checkpoint's."""
        options = {"model.teacher": "original", "model.architecture.network.type": f"{__name__}.seeded_network"}
        make_runner(tmp_path / "straight", options, TINY).train()
        start = {"load_from": str(tmp_path / "straight" / "epoch_1.pth"), "resume": True}
        make_runner(tmp_path / "resumed", options | start, TINY).train()
        assert_same_training(tmp_path / "straight" / "epoch_2.pth", tmp_path / "resumed" / "epoch_2.pth")

    def test_tests_and_exports(self, make_runner, work_dir, tmp_path):
        runner = make_runner(tmp_path, {"load_from": str(work_dir / "epoch_2.pth")}, TINY)
        metrics = runner.test()
        assert 0 <= metrics["largest/accuracy/top1"] <= 100
        evaluator = runner.test_loop.build_evaluator_of_pools()
        chosen = [own for own in runner.test_loop.results if own.rank == 0]
        assert len(chosen) >= 4
        out = tmp_path / "out"
        export_subnets(evaluator, chosen[:3], runner.test_dataloader, out, ["torch", "bundle"])
        entries = read_manifest(out)["subnets"]
        bundled = load_bundle(out / "bundle.safetensors").subnets
        images = torch.randn(2, 3, 32, 32)
        for own, entry, subnet in zip(chosen[:3], entries, bundled, strict=True):
            assert evaluator.algorithm.space.from_record(entry) == own.subnet
            assert entry["parity_error"] <= 1e-5
            net = load_subnet(out / own.name)
            assert (net(images) - subnet.net(images)).abs().max() <= 1e-5

    @pytest.fixture
    def tested(self, make_runner, tmp_path):
        """``tested(network)``: runner of an epoch's training, tested; its evaluator, picks of pools."""

        def run(network):
            options = {"model.architecture.network": network | dict(_delete_=True, num_classes=10)}
            options |= {"train_cfg.max_epochs": 1}
            make_runner(tmp_path, options, TINY).train()
            runner = make_runner(tmp_path, options | {"load_from": str(tmp_path / "epoch_1.pth")}, TINY)
            runner.test()
            chosen = [own for own in runner.test_loop.results if own.rank == 0]
            return runner, runner.test_loop.build_evaluator_of_pools(), chosen

        return run

    def test_a_network_of_concatenations_is_bundled(self, tested, tmp_path):
        """Of most layers behind a concatenation, a subnet has no prefix of the weights."""
        network = dict(type="torchvision.models.DenseNet", growth_rate=16, block_config=(3, 2), num_init_features=32)
        runner, evaluator, chosen = tested(network | dict(bn_size=2))
        out = tmp_path / "out"
        export_subnets(evaluator, chosen, runner.test_dataloader, out, ["torch", "onnx", "bundle"])
        images = torch.randn(2, 3, 32, 32)
        bundled = load_bundle(out / "bundle.safetensors").subnets
        assert sum(bool(subnet.parts) for subnet in bundled) >= len(chosen) - 1 >= 3
        for own, subnet in zip(chosen, bundled, strict=True):
            assert torch.equal(load_subnet(out / own.name)(images), subnet.net(images))

    @pytest.mark.parametrize(("network", "formats"), [
        (dict(type="torchvision.models.ConvNeXt", block_setting=[CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)]),
         ["torch", "onnx", "bundle"]),
        (dict(type="torchvision.models.ShuffleNetV2", stages_repeats=[2, 2, 2],
              stages_out_channels=[16, 32, 48, 64, 64]), ["onnx", "pt2"]),
    ], ids=["layer norms and scales", "shuffles"])  # fmt: skip
    def test_exports_of_other_operations(self, network, formats, tested, tmp_path):
        """A static network has layer norms and scales; ONNX and ``.pt2`` files have any operation."""
        runner, evaluator, chosen = tested(network)
        entries = export_subnets(evaluator, chosen, runner.test_dataloader, tmp_path / "out", formats)
        assert len(entries) == len(chosen) >= 3
        for entry in entries:
            assert entry["parity_errors"].keys() == set(formats)
            assert all(error <= 1e-4 for error in entry["parity_errors"].values())
        if "torch" not in formats:
            with pytest.raises(ExportError, match="of a converted network, the formats onnx and pt2 alone take any"):
                export_subnets(evaluator, chosen, runner.test_dataloader, tmp_path / "static", ["torch"])

    def test_mixed_precision(self, make_runner, tmp_path):
        """Partial layers run in bfloat16, weights and losses stay float32."""
        runner = make_runner(tmp_path, {"optim_wrapper.type": "CPUAmpOptimWrapper", "train_cfg.max_epochs": 1}, TINY)
        types, losses = set(), []
        conv = next(m for m in runner.model.modules() if isinstance(m, PartialConv2d))
        conv.register_forward_hook(lambda module, inputs, output: types.add((module.training, output.dtype)))
        step = runner.model.train_step
        runner.model.train_step = lambda *args, **kwargs: losses.append(step(*args, **kwargs)) or losses[-1]
        before = {name: parameter.clone() for name, parameter in runner.model.named_parameters()}
        runner.train()
        assert (True, torch.bfloat16) in types
        assert len(losses) == 6 and all(value.isfinite().all() for own in losses for value in own.values())
        assert {parameter.dtype for parameter in runner.model.parameters()} == {torch.float32}
        assert all(not torch.equal(before[name], p) for name, p in runner.model.named_parameters() if p.dim() == 4)

    def test_averaged_weights_have_widths_of_their_own(self, algorithm):
        """EMA copies the algorithm; the copy's mutator switches the copy."""
        twin = copy.deepcopy(algorithm)
        twin.mutator.activate(twin.space.smallest)
        assert (
            twin.architecture.backbone.supernet.active_subnet != algorithm.architecture.backbone.supernet.active_subnet
        )
