"""Cream of the Crop as an MMRazor algorithm."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from pss_razor import compat
from pss_razor.core import AdditiveCost, BoardEntry, ConfigError, SearchSpace, Subnet
from pss_razor.estimators import FlopsEstimator, read_cost_graph
from pss_razor.models.mutators import SubnetMutator
from pss_razor.registry import MODELS

from mmengine.dist import all_reduce_params, broadcast
from mmengine.optim import OptimWrapper
from mmrazor.models.algorithms import BaseAlgorithm


@dataclass(frozen=True)
class CreamStep:
    """What a training step is to do; decided by :class:`~pss_razor.engine.PathBoardHook`.

    Args:
        path: The path to train.
        board: The paths that may teach it; empty for plain training.
        meta_update: Whether the matching layer is updated first.
    """

    path: Subnet
    board: Sequence[BoardEntry] = ()
    meta_update: bool = False


@MODELS.register_module()
class Cream(BaseAlgorithm):
    """Train a supernet of one-shot ops path by path, taught by prioritized paths (Cream of the Crop, NeurIPS 2020).

    A training step trains one path on the labels and, if the board has paths, on the logits of one of them, the
    teacher, with the weight rho. Gradients are averaged over processes here, only those of parameters that it uses.

    Args:
        architecture: The supernet, a classifier whose ``mode='tensor'`` returns logits (N, classes) and whose
            backbone has an ``input_size``, such as :class:`CreamMobileNet`.
        mutator: A :class:`SubnetMutator` or its config.
        teacher: ``"meta"``: a linear layer matches teachers to the student; ``"top1"``: the best of the board.
        slice_size: Images of a batch that the board keeps, and that each half of a meta update takes.
        data_preprocessor: See ``BaseAlgorithm``.
        init_cfg: See ``BaseAlgorithm``.

    Example:
        ``model=dict(type='Cream', architecture=dict(type='mmcls.ImageClassifier', backbone=dict(
        type='CreamMobileNet', flops_range=(0, 287)), …))``

    Attributes:
        next_step: What the next training step is to do.
        memory: The first images of the last step's batch (slice_size, C, H, W), and their class probabilities
            (slice_size, classes) by the teacher, or by the path itself without a teacher.

    Raises:
        ConfigError: A value cannot work.
    """

    max_gradient_norm = 1.0  # clips each of the two sets of gradients of a meta update

    def __init__(
        self,
        architecture: dict | nn.Module,
        mutator: dict | SubnetMutator = dict(type="SubnetMutator"),  # noqa: B006 - never changed
        teacher: str = "meta",
        slice_size: int = 4,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(architecture, data_preprocessor, init_cfg)
        if teacher not in ("meta", "top1"):
            raise ConfigError(f"model.teacher = {teacher!r} is not known; choose 'meta' or 'top1'")
        if slice_size < 1:
            raise ConfigError(f"model.slice_size = {slice_size} must be at least 1")
        self.mutator = MODELS.build(mutator) if isinstance(mutator, Mapping) else mutator
        self.mutator.prepare_from_supernet(self.architecture)
        others = [dimension.name for dimension in self.space.dimensions if dimension.kind != "op"]
        if others:
            raise ConfigError(f"the supernet searches {others}, which are no ops; Cream samples paths of ops only")
        self.slice_size = slice_size
        self.matching = nn.Linear(slice_size * self.architecture.head.num_classes, 1) if teacher == "meta" else None
        self.next_step: CreamStep | None = None
        self.memory: tuple[Tensor, Tensor] | None = None

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.mutator.space

    @cached_property
    def flops(self) -> AdditiveCost:
        """FLOPs of every path, in millions."""
        input_size = self.architecture.backbone.input_size
        graph = read_cost_graph(self.architecture, self.space, self.mutator.active, input_size=input_size)
        return FlopsEstimator().build_cost(graph)

    def train_step(
        self,
        data: dict | tuple | list,
        optim_wrapper: OptimWrapper,
        forward: Callable[..., Tensor] | None = None,
        no_sync: Callable[[], Any] | None = None,
    ) -> dict[str, Tensor]:
        """One iteration of the method: a meta update if it is due, then a step of the path.

        Args:
            data: A batch of the data loader.
            optim_wrapper: Steps once, and its optimizer once more in a meta update.
            forward: Of a DDP wrapper; not used, since a path leaves most parameters out.
            no_sync: Of a DDP wrapper; not used.

        Returns:
            Scalars to log: ``loss``, ``label_ce``, ``accuracy`` of the path on this batch in percent, and with a
            teacher ``distillation_ce`` and ``rho``.
        """
        step, self.next_step = self.next_step, None
        if step is None:
            raise ConfigError(
                "no path was sampled for this iteration; set default_hooks.path_board=dict(type='PathBoardHook')"
            )
        batch: Any = self.data_preprocessor(data, True)
        inputs, samples = batch["inputs"], batch["data_samples"]
        self.mutator.activate(step.path)
        if step.meta_update:
            self._meta_step(inputs, samples, step.board, optim_wrapper)

        teacher, rho = self.choose_teacher(step.board) if step.board else (None, None)
        with optim_wrapper.optim_context(self):
            logits = self.architecture(inputs, mode="tensor").float()
            targets = None
            if teacher is not None:
                with torch.no_grad(), self.mutator.active(teacher.path):
                    targets = self.architecture(inputs, mode="tensor").float().softmax(1)
        loss, parts = self._loss(logits, samples, targets, rho)
        optim_wrapper.backward(loss)
        all_reduce_params([p.grad for p in self.parameters() if p.grad is not None], op="mean")
        optim_wrapper.step()
        optim_wrapper.zero_grad()

        taught = logits.detach().softmax(1) if targets is None else targets
        self.memory = inputs[: self.slice_size], taught[: self.slice_size]
        labels = torch.cat([sample.gt_label.label for sample in samples])
        accuracy = (logits.detach().argmax(1) == labels).float().mean() * 100
        return {"loss": loss.detach(), **parts, "accuracy": accuracy}

    def choose_teacher(self, board: Sequence[BoardEntry]) -> tuple[BoardEntry, Tensor | float]:
        """The path of the board that teaches the active path, and the weight rho of its logits.

        One forward pass of the active path on all stored images decides. It changes no BN statistics and gives the
        path no gradient: only the matching layer learns from the match.

        Args:
            board: The paths to choose from.

        Returns:
            The entry, and rho between 0 and 1, with a graph to the matching layer.
        """
        if self.matching is None:
            return board[0], 0.5
        with torch.no_grad(), batch_statistics(self.architecture):
            logits = self.architecture(torch.cat([entry.images for entry in board]), mode="tensor")
        targets = torch.stack([entry.targets for entry in board])
        differences = logits.to(targets).softmax(1).view_as(targets) - targets
        weights = self.matching(differences.flatten(1)).squeeze(1)
        # The first process decides: rounding may differ between devices.
        chosen = weights.argmax()
        broadcast(chosen)
        index = int(chosen)  # read once; a tensor as index would be read at each use
        return board[index], torch.sigmoid(-weights[index])

    def _loss(
        self, logits: Tensor, samples: list, targets: Tensor | None, rho: Tensor | float | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy with the labels, and with the teacher in the proportion ``2 - rho`` to ``rho``."""
        label_ce = compat.head_losses(self.architecture.head, logits, samples)["loss"]
        if targets is None or rho is None:
            return label_ce, {"label_ce": label_ce.detach()}
        distillation_ce = F.cross_entropy(logits, targets)
        loss = (rho * distillation_ce + (2 - rho) * label_ce) / 2
        # On the device of the other parts; torch.tensor(rho) would be on the host.
        weight = rho if isinstance(rho, Tensor) else logits.new_full((), rho)
        parts = {"label_ce": label_ce, "distillation_ce": distillation_ce, "rho": weight}
        return loss, {name: part.detach() for name, part in parts.items()}

    def meta_gradients(
        self, inputs: Tensor, samples: list, board: Sequence[BoardEntry], learning_rate: float
    ) -> tuple[dict[nn.Parameter, Tensor], dict[nn.Parameter, Tensor]]:
        """Gradients of a meta update (Cream, equations 5 to 8), averaged over processes.

        A student step on the training loss of the first slice of images is simulated. The cross-entropy of the second
        slice after this step depends on the matching layer through rho: its derivative is the layer's gradient.

        Args:
            inputs: At least two slices of images (N, C, H, W).
            samples: Their labels.
            board: The paths that may teach.
            learning_rate: Learning rate of the simulated step.

        Returns:
            Parameter -> gradient of the training loss, for the active path; and of the matching layer.
        """
        assert self.matching is not None
        first, second = slice(self.slice_size), slice(self.slice_size, 2 * self.slice_size)
        with batch_statistics(self.architecture):
            teacher, rho = self.choose_teacher(board)
            with torch.no_grad(), self.mutator.active(teacher.path):
                targets = self.architecture(inputs[first], mode="tensor").softmax(1)
            loss, _ = self._loss(self.architecture(inputs[first], mode="tensor"), samples[first], targets, rho)
            names, parameters = zip(*self.architecture.named_parameters(), strict=True)
            graphs = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
            used = [(n, p, g) for n, p, g in zip(names, parameters, graphs, strict=True) if g is not None]
            gradients = [g.detach().clone() for _, _, g in used]
            all_reduce_params(gradients, op="mean")
            simulated = {
                name: (parameter.detach() - learning_rate * gradient).requires_grad_()
                for (name, parameter, _), gradient in zip(used, gradients, strict=True)
            }
            logits = functional_call(self.architecture, simulated, (inputs[second],), {"mode": "tensor"})
            validation, _ = self._loss(logits, samples[second], None, None)
        directions = list(torch.autograd.grad(validation, list(simulated.values())))
        all_reduce_params(directions, op="mean")
        # d validation / d matching = sum over weights of (-learning_rate d gradient / d matching) * direction.
        matching = list(self.matching.parameters())
        meta = torch.autograd.grad(
            [g for _, _, g in used], matching, grad_outputs=[-learning_rate * direction for direction in directions]
        )
        all_reduce_params(meta, op="mean")
        return dict(zip([p for _, p, _ in used], gradients, strict=True)), dict(zip(matching, meta, strict=True))

    def _meta_step(
        self, inputs: Tensor, samples: list, board: Sequence[BoardEntry], optim_wrapper: OptimWrapper
    ) -> None:
        """Step the path and the matching layer on the gradients of a meta update, each clipped."""
        optimizer = optim_wrapper.optimizer
        weights = {id(p) for p in self.architecture.parameters()}
        rates = {group["lr"] for group in optimizer.param_groups for p in group["params"] if id(p) in weights}
        if len(rates) != 1:
            raise ConfigError(f"the supernet's parameters have the learning rates {sorted(rates)}; Cream needs one")
        for gradients in self.meta_gradients(inputs, samples, board, rates.pop()):
            for parameter, gradient in gradients.items():
                parameter.grad = gradient
            nn.utils.clip_grad_norm_(list(gradients), self.max_gradient_norm)
        # Not through the wrapper, which would scale and accumulate gradients, and clip the two sets together.
        optimizer.step()
        optimizer.zero_grad()


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let BN layers in training mode normalise by the batch without moving their running statistics."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
