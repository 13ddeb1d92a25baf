"""The algorithm: one training step, its losses and gradients, and what is refused."""

import contextlib
import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pss_razor.core import ConfigError
from pss_razor.models import PSS
from pss_razor.registry import MODELS

from mmengine.optim import OptimWrapper
from mmrazor.models.mutators import NasMutator


class Recorder(OptimWrapper):
    """Counts, and keeps the gradients that a step sees."""

    def __init__(self, model: nn.Module, lr: float = 0.1) -> None:
        super().__init__(torch.optim.SGD(model.parameters(), lr=lr))
        self.model, self.steps, self.backwards, self.gradients = model, 0, 0, {}

    def backward(self, loss, **kwargs):
        self.backwards += 1
        super().backward(loss, **kwargs)

    def step(self, **kwargs):
        self.steps += 1
        self.gradients = {name: p.grad.clone() for name, p in self.model.named_parameters()}
        super().step(**kwargs)


@pytest.fixture
def algorithm(build_small):
    algorithm = build_small()
    algorithm.train()
    algorithm.sampled_subnet = algorithm.space.decode(algorithm.space.encode([algorithm.space.largest])[0] // 2)
    return algorithm


def logits_of(algorithm, subnet, inputs):
    with algorithm.mutator.active(subnet):
        return algorithm(inputs, mode="tensor")


class TestTrainStep:
    def test_one_step_a_call_and_gradients_zeroed(self, algorithm, make_batch):
        optimizer = Recorder(algorithm)
        before = {name: p.detach().clone() for name, p in algorithm.named_parameters()}
        subnet = algorithm.sampled_subnet
        for call in (1, 2):
            algorithm.sampled_subnet = subnet
            algorithm.train_step(make_batch(seed=call), optimizer)
            assert (optimizer.steps, optimizer.backwards) == (call, 3 * call)
            assert all(p.grad is None or not p.grad.any() for p in algorithm.parameters())
            if call == 1:
                for name, parameter in algorithm.named_parameters():
                    torch.testing.assert_close(parameter, before[name] - 0.1 * optimizer.gradients[name], msg=name)

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_adding_gradients_in_place_changes_no_bit(self, build_small, make_batch, monkeypatch, channels_last):
        def train(enabled):
            algorithm = build_small(channels_last=channels_last)
            algorithm.train()
            optimizer = Recorder(algorithm)
            if not enabled:
                monkeypatch.setattr("pss_razor.models.algorithms.pss.gradients_in_place", contextlib.nullcontext)
            for seed in (1, 2):
                algorithm.sampled_subnet = algorithm.space.decode(
                    algorithm.space.encode([algorithm.space.largest])[0] // 2
                )
                algorithm.train_step(make_batch(seed=seed), optimizer)
            return {**algorithm.state_dict(), **{f"{name}.grad": g for name, g in optimizer.gradients.items()}}

        in_place, plain = train(True), train(False)
        assert {n for n in plain if not torch.equal(in_place[n], plain[n])} == set()

    def test_gradients_are_the_sum_of_three_and_the_teacher_gets_none(self, algorithm, make_batch):
        """Against gradients put together here; a teacher that learns from its students would differ."""
        batch = make_batch()
        inputs = batch["inputs"]
        labels = torch.cat([sample.gt_label.label for sample in batch["data_samples"]])
        parameters = dict(algorithm.named_parameters())
        subnets = (algorithm.space.largest, algorithm.sampled_subnet, algorithm.space.smallest)
        largest, sampled, smallest = (logits_of(algorithm, subnet, inputs) for subnet in subnets)

        def kl(student, teacher):
            p, q = teacher.softmax(1), student.softmax(1)
            return (p * (p / q).log()).sum(1).mean()

        ce = F.cross_entropy(largest, labels)
        constant = largest.detach()
        total = ce + kl(sampled, constant) + kl(smallest, constant)
        expected = torch.autograd.grad(total, parameters.values(), retain_graph=True)
        learning_teacher = torch.autograd.grad(ce + kl(sampled, largest) + kl(smallest, largest), parameters.values())

        optimizer = Recorder(algorithm)
        losses = algorithm.train_step(batch, optimizer)
        told_apart = 0
        for (name, _), gradient, wrong in zip(parameters.items(), expected, learning_teacher, strict=True):
            scale = gradient.abs().max() + 1e-4
            assert (optimizer.gradients[name] - gradient).abs().max() < 1e-2 * scale, name
            told_apart += bool((wrong - gradient).abs().max() > 2e-2 * scale)
        assert told_apart > 10
        assert losses["loss"].item() == pytest.approx(total.item(), rel=1e-4)
        assert losses["largest_ce"].item() == pytest.approx(ce.item(), rel=1e-4)
        assert losses["sampled_kl"].item() == pytest.approx(kl(sampled, largest).item(), rel=1e-3)
        assert losses["smallest_kl"].item() == pytest.approx(kl(smallest, largest).item(), rel=1e-3)
        assert losses["score"].item() == pytest.approx(-F.cross_entropy(sampled, labels).item(), rel=1e-4)

    def test_order_of_subnets_and_one_synchronised_backward(self, algorithm, make_batch):
        """Largest, sampled, smallest; gradients are exchanged in the last only; `forward` is what it is given."""
        events = []

        def forward(inputs, samples, mode):
            assert mode == "tensor" and len(samples) == len(inputs) == 8
            events.append(algorithm.mutator.active_subnet)
            return algorithm(inputs, samples, mode=mode)

        @contextlib.contextmanager
        def no_sync():
            events.append("no_sync")
            yield
            events.append("sync")

        class Optimizer(Recorder):
            def backward(self, loss, **kwargs):
                events.append("backward")
                super().backward(loss, **kwargs)

        sampled = algorithm.sampled_subnet
        algorithm.train_step(make_batch(), Optimizer(algorithm), forward=forward, no_sync=no_sync)
        space = algorithm.space
        assert events == [
            "no_sync", space.largest, "backward", sampled, "backward", "sync", space.smallest, "backward",
        ]  # fmt: skip

    def test_outputs_are_detached_scalars_and_a_score(self, algorithm, make_batch):
        outputs = algorithm.train_step(make_batch(), Recorder(algorithm))
        assert set(outputs) == {"loss", "largest_ce", "sampled_kl", "smallest_kl", "score"}
        for name, value in outputs.items():
            assert value.shape == ((1,) if name == "score" else ())
            assert not value.requires_grad and math.isfinite(value)

    def test_accuracy_of_the_head_is_reported(self, build_small, make_batch):
        algorithm = build_small(**{"architecture.head.cal_acc": True, "architecture.head.topk": (1, 5)})
        algorithm.train()
        algorithm.sampled_subnet = algorithm.space.smallest
        outputs = algorithm.train_step(make_batch(), Recorder(algorithm, lr=0))
        assert {"accuracy_top-1", "accuracy_top-5"} < set(outputs)
        assert 0 <= outputs["accuracy_top-1"].item() <= outputs["accuracy_top-5"].item() <= 100

    def test_without_a_sampled_subnet(self, algorithm, make_batch):
        optimizer = Recorder(algorithm)
        algorithm.train_step(make_batch(), optimizer)
        with pytest.raises(
            ConfigError, match=r"no subnet was sampled for .* set default_hooks\.subnet_sampler=dict\(type='Prior"
        ):
            algorithm.train_step(make_batch(), optimizer)
        assert optimizer.steps == 1

    def test_several_sampled_subnets(self, algorithm, make_batch):
        """Against gradients put together here; each has its own score, in the order of the subnets."""
        batch, space = make_batch(), algorithm.space
        labels = torch.cat([sample.gt_label.label for sample in batch["data_samples"]])
        sampled = [algorithm.sampled_subnet, space.decode(space.encode([space.largest])[0] // 3)]
        subnets = [space.largest, *sampled, space.smallest]
        logits = [logits_of(algorithm, subnet, batch["inputs"]) for subnet in subnets]
        teacher = logits[0].detach().softmax(1)
        divergences = [(teacher * (teacher.log() - z.log_softmax(1))).sum(1).mean() for z in logits[1:]]
        total = F.cross_entropy(logits[0], labels) + sum(divergences)
        parameters = dict(algorithm.named_parameters())
        expected = dict(zip(parameters, torch.autograd.grad(total, parameters.values()), strict=True))

        optimizer = Recorder(algorithm)
        algorithm.sampled_subnets = sampled
        outputs = algorithm.train_step(batch, optimizer)
        assert (optimizer.steps, optimizer.backwards) == (1, 4)
        for name, gradient in expected.items():
            assert (optimizer.gradients[name] - gradient).abs().max() < 1e-2 * (gradient.abs().max() + 1e-4), name
        scores = [-F.cross_entropy(z, labels).item() for z in logits[1:3]]
        assert scores[0] != pytest.approx(scores[1], rel=1e-3)
        assert outputs["score"].tolist() == pytest.approx(scores, rel=1e-4)
        assert outputs["loss"].item() == pytest.approx(total.item(), rel=1e-4)
        assert outputs["sampled_kl"].item() == pytest.approx(sum(d.item() for d in divergences[:2]) / 2, rel=1e-3)
        assert algorithm.passes_of_step == [(subnet, 3) for subnet in subnets]

    def test_sampled_subnet_outside_the_space(self, algorithm, make_batch):
        algorithm.sampled_subnet = type(algorithm.space.largest)({**algorithm.space.largest, "resolution": 63})
        with pytest.raises(ConfigError, match="resolution = 63 is not in the search space"):
            algorithm.train_step(make_batch(), Recorder(algorithm))

    def test_mixup_labels(self, build_small, make_batch):
        """Mixed labels are class probabilities: cross-entropies are with them, the score too."""
        preprocessor = dict(
            type="mmcls.ClsDataPreprocessor",
            num_classes=10,
            batch_augments=dict(augments=dict(type="mmcls.Mixup", alpha=1.0)),
        )
        algorithm = build_small(data_preprocessor=dict(_delete_=True, **preprocessor))
        algorithm.train()
        algorithm.sampled_subnet = algorithm.space.smallest
        seen = []

        def forward(inputs, samples, mode):
            logits = algorithm(inputs, samples, mode=mode)
            seen.append((logits.detach(), torch.stack([sample.gt_label.score for sample in samples])))
            return logits

        outputs = algorithm.train_step(make_batch(), Recorder(algorithm), forward=forward)
        probabilities = seen[0][1]
        torch.testing.assert_close(probabilities.sum(1), torch.ones(8))
        assert ((probabilities > 0).sum(1) == 2).any(), "nothing was mixed"
        (largest, _), (sampled, _), _ = seen
        for name, logits, sign in (("largest_ce", largest, 1), ("score", sampled, -1)):
            expected = -(probabilities * logits.log_softmax(1)).sum(1).mean()
            assert outputs[name].item() == pytest.approx(sign * expected.item(), rel=1e-5)


def step_of(algorithm, batch):
    """A step on the subnet of half the choices; outputs, gradients, and the number of backward passes."""
    algorithm.sampled_subnet = algorithm.space.decode(algorithm.space.encode([algorithm.space.largest])[0] // 2)
    optimizer = Recorder(algorithm.architecture, lr=0)
    return algorithm.train_step(batch, optimizer), optimizer.gradients, optimizer.backwards


class TestLossWeights:
    def test_by_cost(self, build_small, make_batch):
        """Losses are those of the paper; gradients and the sum are weighted."""
        plain, weighted = (build_small(loss_weights=w).train() for w in (None, dict(metric="flops", power=0.5)))
        space = plain.space
        outputs, *_ = step_of(plain, make_batch())
        logged, gradients, _ = step_of(weighted, make_batch())
        names = ("largest_ce", "sampled_kl", "smallest_kl")
        subnets = [subnet for subnet, _ in weighted.passes_of_step]
        costs = [float(plain.costs["flops"](space.encode([subnet]))[0]) for subnet in subnets]
        assert costs[0] > 1.5 * costs[1] > 2 * costs[2]
        roots = [math.sqrt(cost / costs[0]) for cost in costs]
        weights = [3 * root / sum(roots) for root in roots]
        assert weighted._loss_weights(subnets) == pytest.approx(weights, rel=1e-6)
        assert sum(weights) == pytest.approx(3) and weights[0] > 1
        assert [logged[name].item() for name in names] == [outputs[name].item() for name in names]
        expected = sum(w * outputs[name].item() for w, name in zip(weights, names, strict=True))
        assert logged["loss"].item() == pytest.approx(expected, rel=1e-5)
        # The class biases: the gradient is the weighted mean of p - target, whatever the network.
        bias = build_small().train()
        inputs, total = make_batch()["inputs"], 0
        labels = torch.cat([sample.gt_label.label for sample in make_batch()["data_samples"]])
        logits = [logits_of(bias, subnet, inputs).softmax(1).detach() for subnet in subnets]
        targets = [F.one_hot(labels, 10), logits[0], logits[0]]
        total = sum(w * (p - t).mean(0) for w, p, t in zip(weights, logits, targets, strict=True))
        torch.testing.assert_close(gradients["head.fc.bias"], total, rtol=1e-3, atol=1e-6)

    def test_power_0_is_the_paper_bit_by_bit(self, build_small, make_batch):
        steps = [
            step_of(build_small(loss_weights=w).train(), make_batch()) for w in (None, dict(metric="flops", power=0))
        ]
        assert all(torch.equal(steps[0][1][name], gradient) for name, gradient in steps[1][1].items())

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (dict(metric="latency", power=1), "metric 'latency', which has no estimator; model.estimators has"),
            (dict(metric="flops", powre=1), r"must be dict\(metric=…, power=…\)"),
            (dict(metric="flops", power="1"), "the power a number"),
        ],
    )
    def test_errors(self, build_small, weights, message):
        with pytest.raises(ConfigError, match=message):
            build_small(loss_weights=weights)


class TestLargestFirst:
    @pytest.mark.parametrize(
        ("shares", "progress", "weight"),
        [
            ((0, 0), 0, 1),
            ((0.5, 0), 0.49, 0),
            ((0.5, 0), 0.5, 1),
            ((0.5, 0.2), 0.5, 0),
            ((0.5, 0.2), 0.55, 0.25),
            ((0.5, 0.2), 0.75, 1),
            ((0.0, 0.5), 0.25, 0.5),
        ],
    )
    def test_weight_of_the_others(self, algorithm, shares, progress, weight):
        algorithm.largest_first, algorithm.progress = shares, progress
        assert algorithm.student_weight == pytest.approx(weight)

    def test_alone(self, build_small, make_batch):
        """One pass, whose backward exchanges gradients; nothing is sampled, and there is no score."""
        algorithm = build_small(largest_first=(0.5, 0.2)).train()
        algorithm.progress = 0.3
        parameters = dict(algorithm.architecture.named_parameters())
        batch = make_batch()
        labels = torch.cat([sample.gt_label.label for sample in batch["data_samples"]])
        loss = F.cross_entropy(logits_of(algorithm, algorithm.space.largest, batch["inputs"]), labels)
        expected = dict(zip(parameters, torch.autograd.grad(loss, parameters.values()), strict=True))
        optimizer = Recorder(algorithm.architecture)

        def no_sync():
            raise AssertionError("gradients would not be exchanged")

        outputs = algorithm.train_step(batch, optimizer, no_sync=no_sync)
        assert set(outputs) == {"loss", "largest_ce"}
        assert outputs["loss"].item() == outputs["largest_ce"].item() == pytest.approx(loss.item(), rel=1e-5)
        assert (optimizer.steps, optimizer.backwards) == (1, 1)
        assert algorithm.passes_of_step == [(algorithm.space.largest, 3)]
        for name, gradient in expected.items():
            torch.testing.assert_close(optimizer.gradients[name], gradient, rtol=1e-3, atol=1e-5, msg=name)

    def test_the_others_come_in(self, build_small, make_batch):
        """At half weight, gradients are half-way between those of the largest alone and the paper's."""
        gradients = []
        for progress in (0.0, 0.6, 1.0):
            algorithm = build_small(largest_first=(0.5, 0.2)).train()
            algorithm.progress = progress
            _, step, _ = step_of(algorithm, make_batch())
            gradients.append(step)
        for name, alone in gradients[0].items():
            half_way = (alone + gradients[2][name]) / 2
            torch.testing.assert_close(gradients[1][name], half_way, rtol=1e-3, atol=1e-5 * half_way.abs().max() + 1e-6)

    @pytest.mark.parametrize("shares", [(0.5,), (-0.1, 0.5), (0.7, 0.4), (float("nan"), 0), "ab"])
    def test_errors(self, build_small, shares):
        with pytest.raises(
            ConfigError, match=r"model.largest_first = .* two shares of the training, such as \(0.5, 0.2"
        ):
            build_small(largest_first=shares)


class TestAverageTeacher:
    def test_losses_are_against_its_logits(self, build_small, make_batch):
        algorithm = build_small(teacher="average", average_momentum=0.25).train()
        step_of(algorithm, make_batch())
        before = copy.deepcopy(algorithm)
        with torch.no_grad():
            for parameter in algorithm.architecture.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
            now = dict(algorithm.architecture.named_parameters())
            for name, parameter in before.architecture.named_parameters():
                parameter.copy_(0.75 * parameter + 0.25 * now[name])
        batch = make_batch(seed=1)
        with torch.no_grad():
            teacher = logits_of(before, before.space.largest, batch["inputs"]).double().softmax(1)
            smallest = logits_of(copy.deepcopy(algorithm), algorithm.space.smallest, batch["inputs"]).double()
        expected = (teacher * (teacher.log() - smallest.log_softmax(1))).sum(1).mean()
        outputs, _, backwards = step_of(algorithm, batch)
        assert outputs["smallest_kl"].item() == pytest.approx(expected.item(), rel=1e-3)
        assert [passes for _, passes in algorithm.passes_of_step] == [3, 1, 3, 3] and backwards == 3
        assert algorithm.passes_of_step[1][0] == algorithm.space.largest

    def test_at_first_it_is_the_largest(self, build_small, make_batch):
        """Also where weights were initialised or loaded after it was built."""
        steps = []
        for teacher in ("largest", "average"):
            algorithm = build_small(teacher=teacher).train()
            change = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for parameter in algorithm.architecture.parameters():
                    parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=change))
            steps.append(step_of(algorithm, make_batch())[0])
        assert steps[0]["smallest_kl"].item() == pytest.approx(steps[1]["smallest_kl"].item(), rel=1e-4)

    def test_switching_leaves_it_the_largest(self, build_small, make_batch):
        algorithm = build_small(teacher="average").train()
        algorithm.average.update(algorithm.architecture)
        images, logits = make_batch()["inputs"], []
        for subnet in (algorithm.space.largest, algorithm.space.smallest):
            algorithm.mutator.activate(subnet)
            logits.append(algorithm.average(images, mode="tensor"))
        assert torch.equal(*logits)

    @pytest.mark.parametrize("momentum", [0, 1.5])
    def test_errors(self, build_small, momentum):
        with pytest.raises(ConfigError, match=f"model.average_momentum = {momentum} must be above 0, and at most 1"):
            build_small(teacher="average", average_momentum=momentum)


def test_distillation_is_an_option(build_small, make_batch):
    outputs = []
    for config in (None, dict(type="KLDistillation"), dict(type="KLDistillation", temperature=4.0)):
        outputs.append(step_of(build_small(distillation=config).train(), make_batch())[0]["smallest_kl"].item())
    assert outputs[0] == outputs[1] != outputs[2]
    algorithm = build_small(distillation=dict(type="AlphaDivergence", clip=3.0))
    assert algorithm.distillation.clip == 3.0


class TestConfig:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (dict(constraints=[]), "model.constraints is empty; give at least one"),
            (
                dict(constraints=[dict(metric="latency", first=1, last=2, step=1)]),
                r"the metric 'latency', which has no estimator; model.estimators has \['flops', 'params'\]",
            ),
            (
                dict(constraints=[dict(metric="flops", first=f, last=24, step=1) for f in (6, 8)]),
                "model.constraints has 'flops' twice",
            ),
            (
                dict(constraints=[dict(metric="flops", frist=6, last=24, step=1)]),
                "unknown key 'frist'; did you mean 'first'?",
            ),
            (dict(constraints=[dict(metric="flops", first=6, step=1)]), r"misses \['last'\]"),
            (dict(constraints=[dict(metric="flops", first=6, last=24.5, step=1)]), "not a whole number of steps"),
        ],
    )
    def test_constraints(self, build_small, options, message):
        with pytest.raises(ConfigError, match=message):
            build_small(**options)

    def test_mutator(self, build_small):
        with pytest.raises(ConfigError, match=r"model.mutator is a NasMutator; PSS needs a SubnetMutator"):
            build_small(mutator=dict(type="NasMutator"))
        config = dict(type="PSS", architecture=build_small().architecture, mutator=NasMutator(), constraints=[])
        with pytest.raises(ConfigError, match="NasMutator"):
            MODELS.build({**config, "estimators": {}})

    def test_several_constraints(self, build_small):
        constraints = [
            dict(metric="params", first=1.5, last=2, step=0.1),
            dict(metric="flops", first=6, last=24, step=1),
        ]
        algorithm = build_small(constraints=constraints)
        assert [c.metric for c in algorithm.constraints] == ["params", "flops"]
        assert set(algorithm.costs) == {"flops", "params"} and isinstance(algorithm, PSS)

    def test_costs_are_of_this_classifier(self, small_mbv2):
        """10 classes at 64 pixels: the last map has 2 x 2 positions."""
        space = small_mbv2.space
        row = space.encode([space.largest])
        assert 20 < small_mbv2.costs["flops"](row)[0] < 30
        assert small_mbv2.costs["params"](row)[0] * 1e6 == sum(p.numel() for p in small_mbv2.architecture.parameters())


class TestChannelsLast:
    def test_same_logits_in_nhwc(self, build_small, random_subnet, calibrate):
        algorithms = {flag: build_small(channels_last=flag) for flag in (False, True)}
        images = torch.randn(4, 3, 64, 64)
        calibrate(algorithms[False], images)
        algorithms[True].load_state_dict(algorithms[False].state_dict())
        layouts = {False: set(), True: set()}
        nhwc = torch.channels_last
        for flag, algorithm in algorithms.items():
            algorithm.eval()
            for module in algorithm.architecture.backbone.modules():
                if isinstance(module, nn.Conv2d):
                    module.register_forward_hook(
                        lambda m, i, o, flag=flag: layouts[flag].add(
                            (o.is_contiguous(memory_format=nhwc), o.is_contiguous())
                        )
                    )
        space = algorithms[True].space
        for subnet in (space.largest, *(random_subnet(space) for _ in range(3))):
            with torch.no_grad():
                logits = [logits_of(algorithm, subnet, images) for algorithm in algorithms.values()]
            assert logits[0].abs().max() > 0.1
            assert (logits[0] - logits[1]).abs().max() < 1e-5
        # a map of one position is both
        assert layouts[False] - {(True, True)} == {(False, True)} and layouts[True] - {(True, True)} == {(True, False)}
        weights = [m.weight for m in algorithms[True].architecture.modules() if isinstance(m, nn.Conv2d)]
        assert all(weight.is_contiguous(memory_format=nhwc) for weight in weights)

    def test_stays_after_a_checkpoint_is_loaded_and_a_step(self, algorithm, make_batch):
        assert algorithm.channels_last
        algorithm.load_state_dict({name: t.contiguous() for name, t in algorithm.state_dict().items()})
        algorithm.train_step(make_batch(), Recorder(algorithm))
        weight = algorithm.architecture.backbone.conv1.conv.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


@pytest.mark.parametrize("mode", ["tensor", "predict", "loss"])
def test_forward_modes(small_mbv2, make_batch, mode):
    batch = make_batch()
    result = small_mbv2.eval()(batch["inputs"], batch["data_samples"], mode=mode)
    if mode == "tensor":
        assert result.shape == (8, 10)
    elif mode == "predict":
        assert [sample.pred_label.label.shape for sample in result] == [(1,)] * 8
    else:
        labels = torch.cat([sample.gt_label.label for sample in batch["data_samples"]])
        expected = F.cross_entropy(small_mbv2(batch["inputs"]), labels)
        torch.testing.assert_close(result["loss"], expected)


def test_a_step_after_deepcopy_does_not_touch_the_original(algorithm, make_batch):
    before = {name: t.clone() for name, t in algorithm.state_dict().items()}
    twin = copy.deepcopy(algorithm)
    twin.mutator.activate(twin.space.smallest)
    assert algorithm.mutator.active_subnet == algorithm.space.largest
    assert algorithm.mutator.current_choices == dict(algorithm.space.largest)
    twin.train_step(make_batch(), Recorder(twin))
    for name, tensor in algorithm.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not torch.equal(twin.architecture.head.fc.weight, algorithm.architecture.head.fc.weight)
