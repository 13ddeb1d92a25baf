"""MMRazor's AutoSlim on MobileNetV2, with the widths of given subnets: the baseline of several benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from common import build_optimizer

from pss_razor.core import Subnet
from pss_razor.models import PSS
from pss_razor.registry import MODELS

from mmengine.config import Config


def build_algorithm(config: Config, side: int) -> Any:
    """AutoSlim as mmrazor's own config ``autoslim_mbv2_1.5x_supernet_8xb256_in1k.py`` has it, with one random subnet.

    Args:
        config: Of this project, for the classifier's head and the preprocessor.
        side: Of the image that MMRazor's tracer runs.
    """
    recorder = dict(fc=dict(type="ModuleOutputs", source="head.fc"))
    source = {key: dict(recorder="fc", from_student=key == "preds_S") for key in ("preds_S", "preds_T")}
    return MODELS.build(
        dict(
            type="mmrazor.AutoSlim",
            num_random_samples=1,
            data_preprocessor=config.model.data_preprocessor,
            architecture=dict(
                type="mmcls.ImageClassifier",
                backbone=dict(type="mmcls.MobileNetV2", widen_factor=1.0),
                neck=dict(type="mmcls.GlobalAveragePooling"),
                head=config.model.architecture.head,
            ),
            distiller=dict(
                type="mmrazor.ConfigurableDistiller",
                teacher_recorders=recorder,
                student_recorders=recorder,
                distill_losses=dict(loss_kl=dict(type="mmrazor.KLDivergence", tau=1, loss_weight=1)),
                loss_forward_mappings=dict(loss_kl=source),
            ),
            mutator=dict(
                type="mmrazor.OneShotChannelMutator",
                channel_unit_cfg=dict(
                    type="OneShotMutableChannelUnit",
                    default_args=dict(candidate_choices=[0.75, 1.0], choice_mode="ratio", divisor=8),
                ),
                parse_cfg=dict(
                    type="ChannelAnalyzer", demo_input=(1, 3, side, side), tracer_type="BackwardTracer"
                ),
            ),
        )
    )  # fmt: skip


def choices_of(autoslim: Any, algorithm: PSS, subnet: Subnet) -> dict[str, int]:
    """A subnet of this project as choices of AutoSlim's channel units.

    A unit's channels are those of the convs in it; their sizes in a subnet are read off this project's supernet, whose
    modules have the same names.
    """
    own = dict(algorithm.architecture.named_modules())
    choices = {}
    with algorithm.mutator.active(subnet):
        for unit in autoslim.mutator.mutable_units:
            conv = next(c.name for c in unit.output_related if c.name.endswith("conv"))
            choices[unit.name] = own[conv].get_dynamic_params()[0].size(0)
    return choices


def set_candidates(autoslim: Any, choices: Sequence[Mapping[str, int]]) -> None:
    """Let the channel units of AutoSlim choose by number of channels, from those of ``choices`` and the largest."""
    for unit in autoslim.mutator.mutable_units:
        unit.choice_mode = unit.mutable_channel.choice_mode = "number"
        unit.candidate_choices = sorted({unit.num_channels, *(choice[unit.name] for choice in choices)})
        unit.mutable_channel.candidate_choices = unit.candidate_choices


def autoslim_step(
    algorithm: PSS, config: Config, batch: Mapping[str, Any], channels_last: bool
) -> Callable[[Subnet], Callable[[], None]]:
    """AutoSlim's training step, with a given subnet in place of its random one."""
    autoslim = build_algorithm(config, batch["inputs"].size(-1)).to(batch["inputs"].device)
    autoslim.train()  # AutoSlim.train returns None
    smallest = choices_of(autoslim, algorithm, algorithm.space.smallest)
    if channels_last:
        autoslim.architecture.to(memory_format=torch.channels_last)
        plain = autoslim.forward
        autoslim.forward = lambda inputs, *args, **kwargs: plain(
            inputs.contiguous(memory_format=torch.channels_last), *args, **kwargs
        )
    optimizer = build_optimizer(autoslim, config, accumulative_counts=3)
    for key, value in dict(iter=0, max_iters=10**9).items():  # as a runner would set them
        optimizer.message_hub.update_info(key, value)

    def prepare(subnet: Subnet) -> Callable[[], None]:
        sampled = choices_of(autoslim, algorithm, subnet)
        set_candidates(autoslim, [sampled, smallest])
        autoslim.mutator.sample_choices = lambda: dict(sampled)
        return lambda: autoslim.train_step(dict(batch), optimizer)

    return prepare
