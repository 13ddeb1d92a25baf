"""One training step (largest, sampled, smallest subnet; one optimizer step): ``python benchmarks/training_step.py``.

Against static networks of the same three shapes, the lower limit, and against MMRazor's AutoSlim with its own dynamic
ops and mutator. As in a training, the sampled subnet, and where there are several the resolution, is new in every step.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from autoslim import autoslim_step
from common import Figure, build, build_optimizer, main, make_batch, make_static_network
from contenders import Contender, compare_contenders, time_contenders
from torch import nn
from torch.nn import functional as F

from pss_razor.core import SearchSpace, Subnet
from pss_razor.models import PSS, KLDistillation

from mmengine.config import Config

CLASSES = 1000


def middle_subnet(algorithm: PSS) -> Subnet:
    """The subnet of the middle value of every dimension."""
    return Subnet({d.name: d.values[len(d.values) // 2] for d in algorithm.space.dimensions})


def random_subnet(space: SearchSpace, number: int) -> Subnet:
    """A subnet whose choices depend on a number: the same one for every contender of a round."""
    return space.decode(np.random.default_rng(10_000 + number).integers(np.array(space.shape)))


def supernet_step(
    algorithm: PSS, config: Config, batch: Mapping[str, Any], **options: Any
) -> Callable[[Subnet], Callable[[], None]]:
    """The step of this project with a sampled subnet; ``options`` are of the optimizer wrapper."""
    optimizer = build_optimizer(algorithm, config, **options)
    algorithm.train()

    def step(subnet: Subnet) -> None:
        algorithm.sampled_subnet = subnet
        algorithm.train_step(dict(batch), optimizer)

    return lambda subnet: partial(step, subnet)


def static_step(
    algorithm: PSS,
    config: Config,
    batch: Mapping[str, Any],
    lean: bool = True,
    only_largest: bool = False,
    **options: Any,
) -> Callable[[Subnet], Callable[[], None]]:
    """The same work on three static networks; the optimizer updates the weights of the largest one only.

    Args:
        algorithm: With the supernet.
        config: Its config.
        batch: Images and labels.
        lean: With this project's ReLU6 instead of torch's.
        only_largest: Train the largest one alone.
        **options: Of the optimizer wrapper.
    """

    def make(subnet: Subnet) -> nn.Module:
        return make_static_network(algorithm, subnet, lean).to(batch["inputs"].device)

    largest, smallest = make(algorithm.space.largest), make(algorithm.space.smallest)
    optimizer = build_optimizer(largest, config, **options)

    def prepare(subnet: Subnet) -> Callable[[], None]:
        networks = [largest] if only_largest else [largest, make(subnet), smallest]
        parameters = [parameter for network in networks for parameter in network.parameters()]
        return partial(step, networks, parameters)

    def step(networks: Sequence[nn.Module], parameters: Sequence[nn.Parameter]) -> None:
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
        for parameter in parameters:
            parameter.grad = None

    return prepare


def build_contender(
    make: Callable[..., Callable[[Subnet], Callable[[], None]]],
    name: str,
    batch: int,
    sides: Sequence[int],
    fresh: bool = True,
    device: str = "cpu",
    settings: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> Callable[[int], Callable[[], None]]:
    """The rounds of a contender: a step with a subnet, and a resolution, that is new in each.

    Args:
        make: What makes the step, of the algorithm, its config and a batch.
        name: Config in ``configs/pss``.
        batch: Images.
        sides: Resolutions, pixels.
        fresh: False for the middle subnet in every round.
        device: ``"cpu"`` or ``"cuda"``.
        settings: Of the config.
        **options: Of ``make``.
    """
    sizes = {
        "model.architecture.resolutions": list(sides),
        "model.constraints": [dict(metric="flops", num_targets=2)],
    }
    algorithm, config = build(name, **sizes, **settings)
    algorithm.to(device)
    prepare = make(algorithm, config, make_batch(batch, max(sides), CLASSES, device), **options)
    middle = middle_subnet(algorithm)
    return lambda number: prepare(random_subnet(algorithm.space, number) if fresh else middle)


def measure(batch: int, side: int, rounds: int, threads: int) -> Iterator[Figure]:
    """Ratios to static networks and to AutoSlim."""
    one, three = [side], [side // 2, side * 3 // 4, side]
    contiguous = {"model.channels_last": False}

    def contender(make: Callable[..., Any], sides: Sequence[int] = tuple(one), **options: Any) -> Contender:
        return Contender(partial(build_contender, make, "pss_mbv2_flops", batch, sides, **options))

    times = time_contenders(
        {
            "supernet": contender(supernet_step),
            "static": contender(static_step),
            "supernet_resolutions": contender(supernet_step, three),
            "static_resolutions": contender(static_step, three),
            "supernet_seen": contender(supernet_step, fresh=False),
            "autoslim_channels_last": contender(autoslim_step, channels_last=True),
            "autoslim": contender(autoslim_step, channels_last=False, settings=contiguous),
            "supernet_contiguous": contender(supernet_step, settings=contiguous),
        },
        rounds,
        threads,
    )
    where = f"fresh subnets, batch {batch}, {side}x{side}, {threads} threads"
    compare = partial(compare_contenders, times, where=where)

    yield compare("supernet", "static", "static networks of the same shapes and ops", at_most=1.03)
    yield compare("supernet_resolutions", "static_resolutions", "the same with three resolutions", at_most=1.05)
    yield compare("autoslim_channels_last", "supernet", "this project; both channels_last", at_least=1.35)
    yield compare("autoslim", "supernet_contiguous", "this project; both contiguous")
    yield compare("autoslim", "supernet", "this project with channels_last; AutoSlim as it is shipped", at_least=2)
    # Not round by round: they run different subnets.
    seen = statistics.median(times["supernet_seen"])
    yield Figure(
        "supernet_step_seen", seen * 1e3, "ms",
        f"the middle subnet in every step; fresh ones {statistics.median(times['supernet']) * 1e3:.0f} ms",
    )  # fmt: skip


if __name__ == "__main__":
    main(measure, "one training step", batch=64, side=64, rounds=21, threads=2)
