"""Prioritized Subnet Sampling as an MMRazor algorithm."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pss_razor import compat
from pss_razor.core import AdditiveCost, ConfigError, SearchSpace, Subnet, are_two_numbers, build_constraints
from pss_razor.core.scalars import is_number
from pss_razor.estimators import CostGraph, FlopsEstimator, read_cost_graph
from pss_razor.models.algorithms.averaged_network import AveragedNetwork
from pss_razor.models.mutators import SubnetMutator
from pss_razor.registry import MODELS, TASK_UTILS
from pss_razor.slices import gradients_in_place

from mmengine.optim import OptimWrapper
from mmrazor.models.algorithms import BaseAlgorithm

_TEACHERS = ("largest", "original", "average")


@MODELS.register_module()
class PSS(BaseAlgorithm):
    """Train one supernet whose subnets fit any budget (PSS-Net, arXiv 2109.05432).

    A training step runs the largest subnet on the labels, and the sampled and the smallest subnet on the largest's
    detached logits; gradients add up and one optimizer step follows. Which subnet is sampled, or which are, is not
    decided here: :class:`~pss_razor.engine.PrioritizedPoolSamplerHook` sets :attr:`sampled_subnets` before every step.

    A network that was converted may teach them instead, as it was before the training: with ``teacher="original"`` the
    sampled and the smallest subnet learn from its logits on the images at the largest resolution.

    The largest and the smallest subnet take the last and the first choice of every search group. One-shot ops, which
    have no order, are ordered by the FLOPs of each at its place.

    Args:
        architecture: The supernet, a classifier whose ``mode='tensor'`` returns logits (N, classes).
        mutator: A :class:`SubnetMutator` or its config.
        constraints: The resource constraints, one for each metric: dicts with ``metric, first, last, step``, or with
            ``metric, num_targets`` for that many targets from the smallest to the largest subnet.
        estimators: Metric -> estimator config. Metrics without a constraint are only reported.
        input_size: Side of the images in pixels, for a supernet without ``resolutions``; resources depend on it.
        channels_last: Keep weights and images in memory as NHWC, which CPUs and tensor cores prefer.
        teacher: Whose logits the sampled and the smallest subnet learn: ``"largest"``, the paper's; ``"original"``,
            which needs a ``ConvertedImageClassifier`` that starts from trained weights; or ``"average"``, the largest
            subnet with the moving average of the weights.
        average_momentum: Weight of the weights of a step in that average.
        distillation: The loss by which they learn them, of logits (N, classes) and the teacher's: a module, its config,
            or None for :class:`~pss_razor.models.KLDistillation`.
        loss_weights: ``dict(metric=…, power=…)`` weights the loss of each subnet of a step by
            ``(cost / cost of the largest) ** power``, times a factor that makes the weights average 1. None weights all
            by 1, the paper's.
        largest_first: Shares of the training. During the first, only the largest subnet is trained; during the second,
            the weight of the other subnets' losses rises linearly from 0 to 1.
        data_preprocessor: See ``BaseAlgorithm``.
        init_cfg: See ``BaseAlgorithm``.

    Example:
        ``model=dict(type='PSS', architecture=…, mutator=dict(type='SubnetMutator'), estimators=dict(flops=dict(
        type='FlopsEstimator')), constraints=[dict(metric='flops', first=70, last=300, step=10)])``

    Attributes:
        sampled_subnets: The sampled subnets of the next training step.
        smallest_subnet: The smallest subnet of the next training step: the space's, unless the hook sets another.
        progress: Share of the training that is over, in [0, 1], of which ``largest_first`` depends; the hook sets it.
        passes_of_step: What the last training step ran: each subnet, and how many times the multiply-accumulates of its
            forward pass that took, 3 with the backward pass and 1 without.

    Raises:
        ConfigError: The mutator is no :class:`SubnetMutator`, a constraint is malformed, a metric has no estimator,
            there is no such teacher, or another option of the step is out of its range.
    """

    def __init__(
        self,
        architecture: dict | nn.Module,
        mutator: dict | SubnetMutator,
        constraints: Sequence[Mapping[str, Any]],
        estimators: Mapping[str, Mapping[str, Any]],
        input_size: int | None = None,
        channels_last: bool = False,
        teacher: str = "largest",
        average_momentum: float = 0.001,
        distillation: dict | nn.Module | None = None,
        loss_weights: Mapping[str, Any] | None = None,
        largest_first: tuple[float, float] = (0.0, 0.0),
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        # Activations follow BN, whose backward does not need its output: in place they save memory.
        super().__init__(architecture, data_preprocessor, init_cfg, module_inplace=True)
        self.mutator = MODELS.build(mutator) if isinstance(mutator, Mapping) else mutator
        if not isinstance(self.mutator, SubnetMutator):
            raise ConfigError(f"model.mutator is a {type(self.mutator).__name__}; PSS needs a SubnetMutator")
        self.mutator.prepare_from_supernet(self.architecture)
        self.estimators = {metric: TASK_UTILS.build(config) for metric, config in estimators.items()}
        self.input_size = input_size
        self._order_ops()
        self.constraints = build_constraints(constraints, self.estimators, self._resource_range)
        self.channels_last = channels_last
        if channels_last:
            self.architecture.to(memory_format=torch.channels_last)
        distillation = {"type": "KLDistillation"} if distillation is None else distillation
        self.distillation = MODELS.build(distillation) if isinstance(distillation, Mapping) else distillation
        self.sampled_subnets: Sequence[Subnet] = ()
        self.smallest_subnet = self.space.smallest
        self.passes_of_step: list[tuple[Subnet, int]] = []
        self.progress = 1.0
        self.largest_first = _check_largest_first(largest_first)
        self.loss_weights = self._check_loss_weights(loss_weights)
        if teacher not in _TEACHERS:
            raise ConfigError(f"model.teacher = {teacher!r} is not known; choose from {list(_TEACHERS)}")
        if not 0 < average_momentum <= 1:
            raise ConfigError(f"model.average_momentum = {average_momentum} must be above 0, and at most 1")
        # A submodule, since a resumed training goes on with it.
        self.average = AveragedNetwork(self.architecture, average_momentum) if teacher == "average" else None
        # Not a submodule: a checkpoint has the supernet alone, and a resumed training makes its teacher anew.
        self.__dict__["_original"] = self._build_original() if teacher == "original" else None

    def _check_loss_weights(self, loss_weights: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if loss_weights is None:
            return None
        power = loss_weights.get("power")
        if set(loss_weights) != {"metric", "power"} or not is_number(power):
            raise ConfigError(
                f"model.loss_weights = {dict(loss_weights)} must be dict(metric=…, power=…), the power a number; None "
                "weights all losses alike"
            )
        if loss_weights["metric"] not in self.estimators:
            raise ConfigError(
                f"model.loss_weights has the metric {loss_weights['metric']!r}, which has no estimator; "
                f"model.estimators has {sorted(self.estimators)}"
            )
        return loss_weights

    def _build_original(self) -> nn.Module:
        """The network that a converted one was made of, in evaluation mode."""
        if not hasattr(self.architecture, "original_network"):
            raise ConfigError(
                f"model.teacher = 'original': a {type(self.architecture).__name__} starts from nothing, and has no "
                "original; use architecture=dict(type='ConvertedImageClassifier', …), or teacher='largest'"
            )
        original = self.architecture.original_network().eval().requires_grad_(False)
        return original.to(memory_format=torch.channels_last) if self.channels_last else original

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> PSS:
        """Move and cast the teacher along with the supernet."""
        if (original := self.__dict__.get("_original")) is not None:
            original._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)

    @property
    def sampled_subnet(self) -> Subnet | None:
        """The only one of :attr:`sampled_subnets`; None before it is drawn."""
        (subnet,) = self.sampled_subnets or (None,)
        return subnet

    @sampled_subnet.setter
    def sampled_subnet(self, subnet: Subnet) -> None:
        self.sampled_subnets = (subnet,)

    def _order_ops(self) -> None:
        """Order the choices of every op by their FLOPs, so that there are a smallest and a largest subnet."""
        columns = [column for column, dimension in enumerate(self.space.dimensions) if dimension.kind == "op"]
        if not columns:
            return
        cost = FlopsEstimator().build_cost(self.cost_graph)
        ordered = {}
        for column in columns:
            dimension = self.space.dimensions[column]
            indices = np.zeros((len(dimension.values), len(self.space)), dtype=np.int64)
            indices[:, column] = np.arange(len(indices))
            ordered[dimension.name] = [dimension.values[i] for i in np.argsort(cost(indices), kind="stable")]
        self.mutator.order_choices(ordered)
        del self.cost_graph  # it has the former order of choices

    def _resource_range(self, metric: str) -> tuple[float, float]:
        """Resource of the smallest and of the largest subnet."""
        low, high = self.costs[metric](self.space.encode([self.space.smallest, self.space.largest]))
        return float(low), float(high)

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.mutator.space

    @property
    def leaves_parameters_out(self) -> bool:
        """Whether a subnet may not run all layers; of widths alone, the smallest subnet still has a part of each."""
        return any(dimension.kind in ("op", "value") for dimension in self.space.dimensions)

    @cached_property
    def cost_graph(self) -> CostGraph:
        """The layers of the supernet over its search space."""
        return read_cost_graph(self.architecture, self.space, self.mutator.active, input_size=self.input_size)

    @cached_property
    def costs(self) -> dict[str, AdditiveCost]:
        """Metric -> cost of every subnet."""
        return {metric: estimator.build_cost(self.cost_graph) for metric, estimator in self.estimators.items()}

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor") -> Any:
        """Run the active subnet on images (N, C, H, W) at the largest resolution; see ``BaseAlgorithm.forward``."""
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return super().forward(inputs, data_samples, mode)

    def train_step(
        self,
        data: dict | tuple | list,
        optim_wrapper: OptimWrapper,
        forward: Callable[..., Tensor] | None = None,
        no_sync: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> dict[str, Tensor]:
        """One iteration of the method (PSS-Net, section 3): several subnets on one batch, one step.

        Args:
            data: A batch of the data loader.
            optim_wrapper: Steps once.
            forward: Runs the active subnet; a DDP wrapper passes itself.
            no_sync: Context in which ``forward``'s backward does not exchange gradients; not used for the last subnet.

        Returns:
            Scalars to log: the losses of the largest, the sampled (their mean) and the smallest subnet, the weighted
            sum of all, ``loss``, and accuracies if the head reports them; and ``score`` (num_sampled,): minus the
            cross-entropy of each sampled subnet with the labels, from the logits that it was trained on. Of a step that
            trains the largest subnet alone, nothing of the others.
        """
        if not self.sampled_subnets and self.student_weight > 0:
            raise ConfigError(
                "no subnet was sampled for this iteration; set "
                "default_hooks.subnet_sampler=dict(type='PrioritizedPoolSamplerHook')"
            )
        forward = forward or self
        batch: Any = self.data_preprocessor(data, True)
        inputs, samples = batch["inputs"], batch["data_samples"]
        students = [*self.sampled_subnets, self.smallest_subnet] if self.student_weight > 0 else []
        weights = self._loss_weights([self.space.largest, *students])
        self.passes_of_step = []
        if self.average is not None:
            self.average.update(self.architecture)

        def train(
            subnet: Subnet, loss_of: Callable[[Tensor], Tensor], weight: float, exchanges: bool = False
        ) -> tuple[Tensor, Tensor]:
            """Logits (N, classes) and loss of a subnet, whose weighted gradients are added."""
            self.mutator.activate(subnet)
            with gradients_in_place(not exchanges):
                with optim_wrapper.optim_context(self):
                    logits = forward(inputs, samples, mode="tensor")
                loss = loss_of(logits.float())
                optim_wrapper.backward(weight * loss)
            self.passes_of_step.append((subnet, 3))
            return logits.detach().float(), loss.detach()

        log_vars: dict[str, Tensor] = {}

        def head_loss(logits: Tensor) -> Tensor:
            loss, values = self.parse_losses(compat.head_losses(self.architecture.head, logits, samples))
            log_vars.update(values)
            return loss

        # The last subnet exchanges gradients: the smallest, or the largest where it is alone.
        with no_sync() if students else contextlib.nullcontext():
            largest, largest_loss = train(self.space.largest, head_loss, weights[0])
            teacher = self._taught(largest, inputs, optim_wrapper) if students else largest
            distil = partial(self.distillation, teacher=teacher)
            sampled = [train(subnet, distil, w) for subnet, w in zip(students[:-1], weights[1:-1], strict=True)]
        outputs = {"loss": weights[0] * largest_loss, "largest_ce": largest_loss}
        if students:
            _, smallest_loss = train(students[-1], distil, weights[-1], exchanges=forward is not self)
            losses = [*(loss for _, loss in sampled), smallest_loss]
            labels = labels_of(samples)
            outputs |= {
                "loss": sum((w * loss for w, loss in zip(weights[1:], losses, strict=True)), outputs["loss"]),
                "sampled_kl": torch.stack(losses[:-1]).mean(),
                "smallest_kl": smallest_loss,
                "score": torch.stack([-F.cross_entropy(logits, labels) for logits, _ in sampled]),
            }
        optim_wrapper.step()
        optim_wrapper.zero_grad()
        self.sampled_subnets = ()
        return outputs | {name: value for name, value in log_vars.items() if "loss" not in name}

    @property
    def student_weight(self) -> float:
        """Weight of all losses but the largest subnet's at this :attr:`progress`; 0 where it is trained alone."""
        alone, rise = self.largest_first
        if self.progress < alone:
            return 0.0
        return min(1.0, (self.progress - alone) / rise) if rise > 0 else 1.0

    def _loss_weights(self, subnets: Sequence[Subnet]) -> list[float]:
        """Weight of the loss of each subnet of a step, the largest first."""
        weights = np.ones(len(subnets))
        if self.loss_weights is not None:
            costs = self.costs[self.loss_weights["metric"]](self.space.encode(subnets))
            weights = (costs / costs[0]) ** self.loss_weights["power"]
            weights /= weights.mean()
        weights[1:] *= self.student_weight
        return weights.tolist()

    @property
    def own_teacher(self) -> nn.Module | None:
        """The network that teaches, images (N, C, H, W) to logits (N, classes); None where the largest subnet does."""
        return self.average or self.__dict__["_original"]

    def _taught(self, largest: Tensor, inputs: Tensor, optim_wrapper: OptimWrapper) -> Tensor:
        """The teacher's logits (N, classes) of a batch of which the largest subnet's are known."""
        if self.own_teacher is None:
            return largest
        self.passes_of_step.append((self.space.largest, 1))  # either has the layers of the largest subnet
        with torch.no_grad(), optim_wrapper.optim_context(self):
            return self.own_teacher(inputs).float()


def _check_largest_first(shares: tuple[float, float]) -> tuple[float, float]:
    if not are_two_numbers(shares) or min(shares) < 0 or sum(shares) > 1:
        raise ConfigError(
            f"model.largest_first = {shares} must be two shares of the training, such as (0.5, 0.2): how long the "
            "largest subnet is trained alone, and in how long the others come in; both together at most 1"
        )
    return shares


def labels_of(samples: list) -> Tensor:
    """Labels (N,), or class probabilities (N, classes) where the preprocessor mixed the batch."""
    if "score" in samples[0].gt_label:
        return torch.stack([sample.gt_label.score for sample in samples])
    return torch.cat([sample.gt_label.label for sample in samples])
