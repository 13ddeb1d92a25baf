"""What a training step will cost, before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from pss_razor.core import ConfigError
from pss_razor.engine.hooks import SubnetSamplerHook, TrainingCostHook
from pss_razor.evaluation.random_state import isolated_random_state
from pss_razor.models import PSS
from pss_razor.registry import HOOKS, MODELS

from mmcls.structures import ClsDataSample
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope

_SEED = 0


def expected_macs_of_image(config: Config, draws: int = 2000) -> float:
    """Multiply-accumulates of a training step at the start of training, for each image, in millions.

    The sampler hook draws as often as it is said, with empty pools, and the algorithm makes its steps of a network that
    computes nothing; ``passes_of_step`` says which subnets it ran. So whatever the config changes in a step is counted;
    other hooks' work, such as scoring, is not.

    Args:
        config: Of a :class:`PSS`, with its sampler hook in ``default_hooks``.
        draws: How many steps to average over; the standard error of the mean falls with its root.

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
    with isolated_random_state(_SEED):
        algorithm = MODELS.build(config.model)
        if not isinstance(algorithm, PSS):
            raise ConfigError(f"the model is a {type(algorithm).__name__}; its steps cannot be foreseen, a PSS's can")
        # What a hook asks of a runner that has just begun.
        runner: Any = SimpleNamespace(
            hooks=[sampler_hook],
            model=algorithm,
            seed=_SEED,
            logger=logging.getLogger(__name__),
            message_hub=SimpleNamespace(update_scalar=lambda name, value: None),
            train_loop=None,
            epoch=0,
            iter=0,
            max_epochs=1,
            max_iters=1,
        )
        step = _EmptyStep(algorithm)
        cost_hook = TrainingCostHook()
        for hook in (sampler_hook, cost_hook):
            hook.before_run(runner)
        for _ in range(draws):
            sampler_hook.before_train_iter(runner, 0)
            cost_hook.add(step(), images=1)
    assert cost_hook.cost is not None
    return cost_hook.cost["gmacs"] * 1e3 / draws


def equal_cost_epochs(configs: Mapping[str, Config]) -> dict[str, int]:
    """Epochs with which trainings cost what the first one costs, by :func:`expected_macs_of_image`.

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
    macs = {name: expected_macs_of_image(config) for name, config in configs.items()}
    first = next(iter(configs))
    budget = configs[first].train_cfg.max_epochs * macs[first]
    return {name: max(1, round(budget / own)) for name, own in macs.items()}


class _EmptyStep:
    """The training step of an algorithm, of one image and a network that computes nothing."""

    def __init__(self, algorithm: PSS) -> None:
        self.algorithm = algorithm
        classes = getattr(algorithm.architecture, "num_classes", None) or algorithm.architecture.head.num_classes
        self._logits = nn.Parameter(torch.zeros(1, classes))
        self._optim_wrapper = OptimWrapper(torch.optim.SGD([self._logits], lr=0.0))

    def __call__(self) -> list[tuple[Any, int]]:
        """The subnets that ran, and how often each counts."""
        image = torch.zeros(3, 8, 8, dtype=torch.uint8)
        batch = dict(inputs=[image], data_samples=[ClsDataSample().set_gt_label(0)])
        self.algorithm.train_step(batch, self._optim_wrapper, forward=self._forward)
        return self.algorithm.passes_of_step

    def _forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._logits * 1.0
