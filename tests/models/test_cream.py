"""The Cream algorithm on a tiny network of op choices."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn import functional as F

from pss_razor.core import BoardEntry, ConfigError, Subnet
from pss_razor.models import CreamStep
from pss_razor.models.algorithms.cream import batch_statistics
from pss_razor.registry import MODELS

from mmcls.models.backbones.base_backbone import BaseBackbone
from mmcls.structures import ClsDataSample
from mmengine.optim import OptimWrapper
from mmrazor.models.mutables import OneShotMutableOP

CLASSES, SLICE = 3, 2


def op(channels_in, channels_out, kernel):
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride=2, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.SiLU())


@MODELS.register_module()
class TinyPaths(BaseBackbone):
    input_size = 12

    def __init__(self):
        super().__init__()
        self.first = OneShotMutableOP(nn.ModuleDict({"k1": op(3, 4, 1), "k3": op(3, 4, 3)}))
        self.second = OneShotMutableOP(nn.ModuleDict({"k1": op(4, 5, 1), "k3": op(4, 5, 3), "k5": op(4, 5, 5)}))

    def forward(self, x):
        return (self.second(self.first(x)),)


def build(teacher="meta", **options):
    torch.manual_seed(0)
    head = dict(
        type="mmcls.LinearClsHead", num_classes=CLASSES, in_channels=5, loss=dict(type="mmcls.CrossEntropyLoss")
    )
    architecture = dict(
        type="mmcls.ImageClassifier",
        backbone=dict(type="TinyPaths"),
        neck=dict(type="mmcls.GlobalAveragePooling"),
        head=head,
        data_preprocessor=dict(type="mmengine.BaseDataPreprocessor"),
    )
    config = dict(type="Cream", architecture=architecture, teacher=teacher, slice_size=SLICE, **options)
    return MODELS.build(config).double().train()


@pytest.fixture
def algorithm():
    return build()


def path_of(algorithm, first, second):
    return Subnet(dict(zip(algorithm.space.names, (first, second), strict=True)))


def images_of(count, seed):
    return torch.rand(count, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def board_of(algorithm, *paths):
    generator = torch.Generator().manual_seed(1)
    targets = [torch.rand(SLICE, CLASSES, dtype=torch.float64, generator=generator).softmax(1) for _ in paths]
    return [
        BoardEntry(50.0, 1.0, path_of(algorithm, *path), images_of(SLICE, seed), target)
        for seed, (path, target) in enumerate(zip(paths, targets, strict=True))
    ]


def batch_of(count, seed=7):
    samples = [ClsDataSample().set_gt_label(i % CLASSES) for i in range(count)]
    return images_of(count, seed), samples


def run(algorithm, path, images, parameters=None):
    """Logits of a path, with other parameters if given, without touching anything."""
    with algorithm.mutator.active(path), batch_statistics(algorithm):
        return functional_call(algorithm.architecture, parameters or {}, (images,), {"mode": "tensor"})


def test_paths_are_other_networks(algorithm):
    image = images_of(2, 0)
    first, second = path_of(algorithm, "k1", "k5"), path_of(algorithm, "k3", "k5")
    assert not torch.equal(run(algorithm, first, image), run(algorithm, second, image))
    assert dict(first) == {"backbone.first": "k1", "backbone.second": "k5"}


class TestChoiceOfTheTeacher:
    def test_is_that_of_one_forward_an_entry(self, algorithm):
        algorithm.eval()  # so that the images of a batch do not depend on each other
        board = board_of(algorithm, ("k1", "k1"), ("k3", "k3"), ("k3", "k5"))
        student = path_of(algorithm, "k1", "k3")
        with algorithm.mutator.active(student):
            entry, rho = algorithm.choose_teacher(board)
            weights = [
                algorithm.matching((algorithm.architecture(e.images).softmax(1) - e.targets).flatten()) for e in board
            ]
        assert entry is board[int(torch.cat(weights).argmax())]
        torch.testing.assert_close(rho, torch.sigmoid(-max(weights))[0])
        assert len({round(float(w.detach()), 6) for w in weights}) == 3

    def test_rho_reaches_the_matching_layer_only(self, algorithm):
        board = board_of(algorithm, ("k1", "k1"), ("k3", "k3"))
        algorithm.mutator.activate(path_of(algorithm, "k1", "k3"))
        algorithm.choose_teacher(board)[1].backward()
        assert all(p.grad is not None for p in algorithm.matching.parameters())
        assert all(p.grad is None for p in algorithm.architecture.parameters())

    def test_top1(self):
        algorithm = build("top1")
        board = board_of(algorithm, ("k1", "k1"), ("k3", "k3"))
        assert algorithm.choose_teacher(board) == (board[0], 0.5)
        assert algorithm.matching is None


class TestMetaUpdate:
    def test_second_order_gradient_is_that_of_finite_differences(self, algorithm):
        """Against the definition, written down without a second derivative."""
        rate = 0.7
        path = path_of(algorithm, "k1", "k3")
        board = board_of(algorithm, ("k3", "k5"), ("k1", "k1"))
        images, samples = batch_of(2 * SLICE)
        labels = torch.cat([sample.gt_label.label for sample in samples])
        names = [n for n, _ in algorithm.architecture.named_parameters() if ".k" not in n]
        names += [n for n, _ in algorithm.architecture.named_parameters() if "first" in n and ".k1" in n]
        names += [n for n, _ in algorithm.architecture.named_parameters() if "second" in n and ".k3" in n]
        everything = dict(algorithm.architecture.named_parameters())

        def validation_loss():
            stored = torch.cat([entry.images for entry in board])
            differences = [
                (p - e.targets).flatten()
                for p, e in zip(run(algorithm, path, stored).softmax(1).split(SLICE), board, strict=True)
            ]
            weights = [algorithm.matching(d.detach()) for d in differences]
            chosen = max(range(len(board)), key=lambda i: float(weights[i].detach()))
            rho = torch.sigmoid(-weights[chosen])
            leaves = {n: everything[n].detach().clone().requires_grad_() for n in names}
            student = run(algorithm, path, images[:SLICE], leaves)
            teacher = run(algorithm, board[chosen].path, images[:SLICE]).softmax(1).detach()
            soft = -(teacher * student.log_softmax(1)).sum(1).mean()
            loss = (rho * soft + (2 - rho) * F.cross_entropy(student, labels[:SLICE])) / 2
            gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
            after = {n: leaf - rate * g for (n, leaf), g in zip(leaves.items(), gradients, strict=True)}
            return float(F.cross_entropy(run(algorithm, path, images[SLICE:], after), labels[SLICE:]).detach())

        algorithm.mutator.activate(path)
        gradients, meta = algorithm.meta_gradients(images, samples, board, rate)
        assert {id(p) for p in gradients} == {id(everything[n]) for n in names}
        step = 1e-5
        for parameter in algorithm.matching.parameters():
            numeric = torch.zeros_like(parameter)
            for index in range(parameter.numel()):
                values = []
                for sign in (1, -1):
                    parameter.data.view(-1)[index] += sign * step
                    values.append(validation_loss())
                    parameter.data.view(-1)[index] -= sign * step
                numeric.view(-1)[index] = (values[0] - values[1]) / (2 * step)
            assert numeric.abs().max() > 1e-6
            torch.testing.assert_close(meta[parameter], numeric, rtol=1e-5, atol=1e-9)

    def test_both_steps_are_taken_and_clipped(self, algorithm):
        path, board = path_of(algorithm, "k1", "k3"), board_of(algorithm, ("k3", "k5"), ("k1", "k1"))
        images, samples = batch_of(8)
        with torch.no_grad():
            algorithm.architecture.head.fc.weight *= 50  # a gradient to clip
        before = {name: p.detach().clone() for name, p in algorithm.named_parameters()}
        algorithm.mutator.activate(path)
        gradients, meta = algorithm.meta_gradients(images, samples, board, 0.5)
        groups = [
            {"params": list(algorithm.architecture.parameters()), "lr": 0.5},
            {"params": list(algorithm.matching.parameters()), "lr": 0.01},
        ]
        algorithm._meta_step(images, samples, board, OptimWrapper(torch.optim.SGD(groups, lr=1.0)))
        norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
        assert norm > 1
        ids = {id(p): g / norm * 0.5 for p, g in gradients.items()} | {id(p): g * 0.01 for p, g in meta.items()}
        for name, parameter in algorithm.named_parameters():
            expected = before[name] - ids[id(parameter)] if id(parameter) in ids else before[name]
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-12)
        assert all(p.grad is None for p in algorithm.parameters())


class TestTrainStep:
    def step(self, algorithm, board=(), meta_update=False, path=("k1", "k3"), count=8):
        images, samples = batch_of(count)
        algorithm.next_step = CreamStep(path_of(algorithm, *path), board, meta_update)
        optimizer = torch.optim.SGD(
            [
                {"params": list(algorithm.architecture.parameters())},
                {"params": [p for p in [algorithm.matching] if p is not None for p in p.parameters()], "lr": 1e-3},
            ],
            lr=0.1,
        )
        return algorithm.train_step({"inputs": images, "data_samples": samples}, OptimWrapper(optimizer))

    def test_without_a_board_it_is_cross_entropy(self, algorithm):
        images, samples = batch_of(8)
        labels = torch.cat([sample.gt_label.label for sample in samples])
        logits = run(algorithm, path_of(algorithm, "k1", "k3"), images)
        outputs = self.step(algorithm)
        torch.testing.assert_close(outputs["loss"], F.cross_entropy(logits, labels), check_dtype=False)
        assert float(outputs["accuracy"]) == float((logits.argmax(1) == labels).double().mean() * 100)
        # its own probabilities are what the board would keep
        torch.testing.assert_close(algorithm.memory[1], logits[:SLICE].softmax(1).float(), check_dtype=False)
        assert torch.equal(algorithm.memory[0], images[:SLICE])

    @pytest.mark.parametrize("teacher", ["meta", "top1"])
    def test_with_a_board_the_teacher_counts_by_rho(self, teacher):
        algorithm = build(teacher)
        board = board_of(algorithm, ("k3", "k5"), ("k1", "k1"))
        images, samples = batch_of(8)
        labels = torch.cat([sample.gt_label.label for sample in samples])
        path = path_of(algorithm, "k1", "k3")
        with algorithm.mutator.active(path):
            entry, rho = algorithm.choose_teacher(board)
        student, soft = run(algorithm, path, images), run(algorithm, entry.path, images).softmax(1)
        expected = (
            rho * -(soft * student.log_softmax(1)).sum(1).mean() + (2 - rho) * F.cross_entropy(student, labels)
        ) / 2
        outputs = self.step(algorithm, board)
        torch.testing.assert_close(outputs["loss"], expected.detach(), check_dtype=False)
        torch.testing.assert_close(outputs["rho"], torch.as_tensor(rho).detach(), check_dtype=False)
        torch.testing.assert_close(algorithm.memory[1], soft[:SLICE], check_dtype=False)

    def test_what_is_logged_of_a_number_is_on_the_device_of_the_logits(self):
        """On fake CUDA tensors: rho of the best path is a number, the others are tensors of the GPU."""
        algorithm = build("top1")
        _, rho = algorithm.choose_teacher(board_of(algorithm, ("k3", "k5")))
        with FakeTensorMode():
            logits = torch.ones(8, CLASSES, device="cuda", requires_grad=True)
            samples = [ClsDataSample().set_gt_label(0).to("cuda") for _ in range(8)]
            _, parts = algorithm._loss(logits, samples, logits.detach().softmax(1), rho)
        assert {name: part.device.type for name, part in parts.items()} == dict.fromkeys(
            ("label_ce", "distillation_ce", "rho"), "cuda"
        )

    def test_only_the_path_and_the_matching_layer_learn(self, algorithm):
        board = board_of(algorithm, ("k3", "k5"))
        before = {name: p.detach().clone() for name, p in algorithm.named_parameters()}
        self.step(algorithm, board)
        moved = {name for name, p in algorithm.named_parameters() if not torch.equal(p, before[name])}
        assert {name.split(".")[0] for name in moved} == {"architecture", "matching"}
        inactive = ("first._candidates.k3", "second._candidates.k1", "second._candidates.k5")
        assert not any(part in name for name in moved for part in inactive)
        assert any("first._candidates.k1" in name for name in moved)

    def test_bn_statistics_are_those_of_whole_batches(self, algorithm):
        board = board_of(algorithm, ("k3", "k5"), ("k1", "k1"))
        self.step(algorithm, board, meta_update=True)
        tracked = {n: int(b) for n, b in algorithm.named_buffers() if n.endswith("num_batches_tracked")}
        ran = {n.removeprefix("architecture.backbone.") for n, count in tracked.items() if count}
        assert set(tracked.values()) == {0, 1}
        # the student's, and the teacher's, which ran on the whole batch too
        assert {n.split(".")[0] + n.split(".")[2] for n in ran} in ({"firstk1", "secondk3", "firstk3", "secondk5"},
                                                                   {"firstk1", "secondk3", "secondk1"})  # fmt: skip

    def test_without_a_path_it_says_what_is_missing(self, algorithm):
        images, samples = batch_of(4)
        with pytest.raises(ConfigError, match="PathBoardHook"):
            algorithm.train_step({"inputs": images, "data_samples": samples}, None)


@pytest.mark.parametrize(("options", "problem"), [({"teacher": "best"}, "'best'")])
def test_wrong_arguments(options, problem):
    with pytest.raises(ConfigError, match=problem):
        build(**options)
