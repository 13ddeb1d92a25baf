"""One training step (largest, sampled, smallest subnet; one optimizer step): ``python benchmarks/training_step.py``.

Against static networks of the same three shapes, the lower limit, and against MMRazor's AutoSlim with its own dynamic
ops and mutator. The sampled subnet has the middle value of every dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from autoslim import build_autoslim
from common import Figure, build, build_optimizer, main, make_batch, make_static_network, time_in_turn
from torch.nn import functional as F

from pss_razor.core import Subnet
from pss_razor.models import PSS, KLDistillation

from mmengine.config import Config

CLASSES = 1000


def middle_subnet(algorithm: PSS) -> Subnet:
    """The subnet of the middle value of every dimension."""
    return Subnet({d.name: d.values[len(d.values) // 2] for d in algorithm.space.dimensions})


def supernet_step(
    algorithm: PSS, config: Config, batch: Mapping[str, Any], subnet: Subnet, **options: Any
) -> Callable[[], None]:
    """The step of this project; ``options`` are of the optimizer wrapper."""
    optimizer = build_optimizer(algorithm, config, **options)
    algorithm.train()

    def step() -> None:
        algorithm.sampled_subnet = subnet
        algorithm.train_step(dict(batch), optimizer)

    return step


def static_step(
    algorithm: PSS,
    config: Config,
    batch: Mapping[str, Any],
    subnet: Subnet,
    lean: bool = True,
    only_largest: bool = False,
    **options: Any,
) -> Callable[[], None]:
    """The same work on three static networks; the optimizer updates the weights of the largest one only.

    Args:
        algorithm: With the supernet.
        config: Its config.
        batch: Images and labels.
        subnet: The shape of the sampled one.
        lean: With this project's ReLU6 instead of torch's.
        only_largest: Train the largest one alone.
        **options: Of the optimizer wrapper.
    """
    subnets = (algorithm.space.largest, subnet, algorithm.space.smallest)[: 1 if only_largest else 3]
    networks = [make_static_network(algorithm, s, lean).to(batch["inputs"].device) for s in subnets]
    optimizer = build_optimizer(networks[0], config, **options)

    def step() -> None:
        data = algorithm.data_preprocessor(dict(batch), True)
        images = data["inputs"]
        if algorithm.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.cat([sample.gt_label.label for sample in data["data_samples"]])
        teacher = None
        for network in networks:
            with optimizer.optim_context(network):
                logits = network(images, mode="tensor")
            logits = logits.float()
            loss = F.cross_entropy(logits, labels) if teacher is None else KLDistillation()(logits, teacher)
            teacher = logits.detach() if teacher is None else teacher
            optimizer.backward(loss)
        optimizer.step()
        for network in networks:
            network.zero_grad()

    return step


def measure(batch: int, side: int, rounds: int, threads: int) -> Iterator[Figure]:
    """Ratios to static networks and to AutoSlim, and what mixed precision changes."""
    torch.set_num_threads(threads)
    fixed = {"model.architecture.resolutions": [side], "model.constraints": [dict(metric="flops", num_targets=10)]}
    searched = {**fixed, "model.architecture.resolutions": [side // 2, side * 3 // 4, side]}
    images = make_batch(batch, side, CLASSES)
    where = f"batch {batch}, {side}x{side}, {threads} threads"

    algorithm, config = build("pss_mbv2_flops", **fixed)
    subnet = middle_subnet(algorithm)
    contiguous, contiguous_config = build("pss_mbv2_flops", **fixed, **{"model.channels_last": False})
    resized, resized_config = build("pss_mbv2_flops", **searched)
    medians = time_in_turn(
        {
            "supernet": supernet_step(algorithm, config, images, subnet),
            "static": static_step(algorithm, config, images, subnet),
            "static_with_plain_relu6": static_step(algorithm, config, images, subnet, lean=False),
            "autoslim": build_autoslim(contiguous, contiguous_config, images, subnet, channels_last=False),
            "autoslim_channels_last": build_autoslim(algorithm, config, images, subnet, channels_last=True),
            "supernet_contiguous": supernet_step(contiguous, contiguous_config, images, subnet),
            "static_contiguous": static_step(contiguous, contiguous_config, images, subnet),
            "supernet_resolutions": supernet_step(resized, resized_config, images, middle_subnet(resized)),
            "static_resolutions": static_step(resized, resized_config, images, middle_subnet(resized)),
            "supernet_bf16": supernet_step(algorithm, config, images, subnet, type="CPUAmpOptimWrapper"),
        },
        rounds,
    )

    def ratio(ours: str, theirs: str, what: str, **bar: float) -> Figure:
        return Figure(
            f"{ours}_over_{theirs}", medians[ours] / medians[theirs], "x",
            f"{what} {medians[theirs] * 1e3:.0f} ms, {where}", **bar,
        )  # fmt: skip

    yield Figure("supernet_step", medians["supernet"] * 1e3, "ms", f"static networks {medians['static'] * 1e3:.0f} ms")
    yield ratio("supernet", "static", "static networks of the same shapes and ops", at_most=1.08)
    yield ratio("supernet", "static_with_plain_relu6", "the same with torch's ReLU6", at_most=1.08)
    yield ratio("supernet_resolutions", "static_resolutions", "the same with three resolutions", at_most=1.08)
    yield ratio("supernet_contiguous", "static_contiguous", "the same without channels_last")
    yield ratio("autoslim", "supernet", "this project, AutoSlim as it is shipped", at_least=2)
    yield ratio("autoslim_channels_last", "supernet", "this project, AutoSlim's weights and images channels_last")
    yield ratio("supernet_bf16", "supernet", "float32; bfloat16 autocast, depthwise convs in float32")


if __name__ == "__main__":
    main(measure, "one training step", batch=64, side=64, rounds=7, threads=2)
