"""What a training step will cost, before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pss_razor.core import ConfigError
from pss_razor.engine.hooks import PrioritizedPoolSamplerHook, SubnetSamplerHook, TrainingCostHook
from pss_razor.evaluation.random_state import isolated_random_state
from pss_razor.models import PSS
from pss_razor.registry import HOOKS, MODELS

from mmcls.structures import ClsDataSample
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

_SEED = 0


def expected_macs(config: Config, draws: int = 2000) -> tuple[float, float]:
    """Multiply-accumulates of a training, in millions, before anything is trained.

    The sampler hook draws as often as it is said, over the whole of a training, and the algorithm makes its steps of a
    network that computes nothing; ``passes_of_step`` says which subnets it ran. So whatever the config changes in a
    step is counted. Pools do not learn; where they are scored anew, the scores are random.

    Args:
        config: Of a :class:`PSS`, with its sampler hook in ``default_hooks``.
        draws: How many steps to average over; the standard error of the mean falls with its root.

    Returns:
        Of a step, on average, for each image; and of scoring pools anew, in all.

    Raises:
        ConfigError: The model is no :class:`PSS`, or no hook samples subnets.
    """
    init_default_scope(config.get("default_scope", "mmrazor"))
    hooks = [HOOKS.get(str(hook.get("type"))) for hook in (config.get("default_hooks") or {}).values() if hook]
    place = next(
        (i for i, cls in enumerate(hooks) if isinstance(cls, type) and issubclass(cls, SubnetSamplerHook)), None
    )
    if place is None:
        raise ConfigError("default_hooks has none that samples subnets; set subnet_sampler")
    sampler_hook = HOOKS.build([hook for hook in config.default_hooks.values() if hook][place])
    if isinstance(sampler_hook, PrioritizedPoolSamplerHook):
        generator = np.random.default_rng(_SEED)
        sampler_hook.score_held_out = lambda runner, rescoring, subnets: generator.normal(size=len(subnets)).tolist()  # type: ignore[method-assign]
    with isolated_random_state(_SEED):
        algorithm = MODELS.build(config.model)
        if not isinstance(algorithm, PSS):
            raise ConfigError(f"the model is a {type(algorithm).__name__}; its steps cannot be foreseen, a PSS's can")
        step = _EmptyStep(algorithm)
        of_steps, of_scores = TrainingCostHook(), TrainingCostHook()
        # What a hook asks of a runner.
        runner: Any = SimpleNamespace(
            hooks=[sampler_hook, of_scores],
            model=algorithm,
            seed=_SEED,
            logger=logging.getLogger(__name__),
            message_hub=SimpleNamespace(update_scalar=lambda name, value: None),
            train_loop=None,
            iter=0,
            max_iters=draws,
        )
        for hook in (sampler_hook, of_steps, of_scores):
            hook.before_run(runner)
        for runner.iter in range(draws):
            sampler_hook.before_train_iter(runner, 0)
            of_steps.add(step(), images=1)
    assert of_steps.cost is not None and of_scores.cost is not None
    return of_steps.cost["gmacs"] * 1e3 / draws, of_scores.cost["gmacs"] * 1e3


def equal_cost_epochs(configs: Mapping[str, Config]) -> dict[str, int]:
    """Epochs with which trainings cost what the first one costs, by :func:`expected_macs`.

    Args:
        configs: Name -> config. All have as many images in an epoch.

    Returns:
        Name -> whole epochs, at least 1; those of the first are its own.

    Raises:
        ConfigError: A training does not count epochs, or its cost cannot be foreseen.
    """
    for name, config in configs.items():
        if "max_epochs" not in config.train_cfg:
            raise ConfigError(f"{name} counts iterations; equal multiply-accumulates are made by epochs")
    macs = {name: expected_macs(config) for name, config in configs.items()}
    first = next(iter(configs.values()))
    of_step, of_scores = next(iter(macs.values()))
    budget = first.train_cfg.max_epochs * of_step
    if any(scores for _, scores in macs.values()):
        images = _images_an_epoch(first)
        macs = {name: (step, scores / images) for name, (step, scores) in macs.items()}
        budget += of_scores / images
    return {name: max(1, round((budget - scores) / step)) for name, (step, scores) in macs.items()}


def _images_an_epoch(config: Config) -> int:
    loader = Runner.build_dataloader(config.train_dataloader)
    return len(loader.sampler) // loader.batch_size * loader.batch_size if loader.drop_last else len(loader.sampler)


class _EmptyStep:
    """The training step of an algorithm, of one image and networks that compute nothing."""

    def __init__(self, algorithm: PSS) -> None:
        self.algorithm = algorithm
        classes = getattr(algorithm.architecture, "num_classes", None) or algorithm.architecture.head.num_classes
        self._logits = nn.Parameter(torch.zeros(1, classes))
        self._optim_wrapper = OptimWrapper(torch.optim.SGD([self._logits], lr=0.0))
        if algorithm.own_teacher is not None:
            algorithm.own_teacher.forward = self._forward

    def __call__(self) -> list[tuple[Any, int]]:
        """The subnets that ran, and how often each counts."""
        image = torch.zeros(3, 8, 8, dtype=torch.uint8)
        batch = dict(inputs=[image], data_samples=[ClsDataSample().set_gt_label(0)])
        self.algorithm.train_step(batch, self._optim_wrapper, forward=self._forward)
        return self.algorithm.passes_of_step

    def _forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._logits * 1.0
