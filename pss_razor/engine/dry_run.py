"""Build and check a training, and measure it on some batches, without leaving files."""

from __future__ import annotations

import contextlib
import itertools
import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pss_razor.core import AdditiveCost, ListSampler, SearchSpace
from pss_razor.engine.hooks import SubnetSamplerHook
from pss_razor.engine.loops import ConstrainedSearchLoop
from pss_razor.estimators import FlopsEstimator, OneShotResourceEstimator
from pss_razor.evaluation.checks import first_image, get_model, has_sampler_state
from pss_razor.evaluation.evaluation_check import check_evaluation
from pss_razor.models import PSS, Cream

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmrazor.engine import EvolutionSearchLoop

_STEPS = 5
_DRAWS = 20_000
_VALUES_SHOWN = 8


def dry_run(runner: Runner) -> str:
    """Train on some batches, and build and check the final test.

    Args:
        runner: Runner of a training, with a temporary work directory. Of a search, some batches of a candidate are
            evaluated.

    Returns:
        A report: the search space, its smallest, median and largest resources, the number of subnets of each target,
        memory and time of a step, or of a candidate, and the duration of the whole training. Spaces of MMRazor's own
        mutators are not described.

    Raises:
        PSSError: Whatever would end the training or its final test.
    """
    model: Any = get_model(runner)
    loop = runner.train_loop
    steps = None
    if not isinstance(loop, EvolutionSearchLoop):
        steps = _StepTimes()
        runner.register_hook(steps, "LOWEST")
        with contextlib.suppress(_Enough):
            runner.train()
    else:
        runner.call_hook("before_run")
    test = runner.test_loop
    if not has_sampler_state(runner.cfg):  # pools check theirs when the loop is built
        check_evaluation(model, test.dataloader, test.evaluator, "test_dataloader")
    parts = []
    space = getattr(getattr(model, "mutator", None), "space", None)
    if isinstance(space, SearchSpace):
        parts += [_describe_space(space), _describe_costs(_costs_of(runner, model, space))]
    sampler = next((hook.sampler for hook in runner.hooks if isinstance(hook, SubnetSamplerHook)), None)
    for metric, conditional in (sampler.conditional_samplers if sampler else {}).items():
        counts = [[f"{target:g}", f"{conditional.count(target):,}"] for target in conditional.constraint.targets]
        header = "subnets" if isinstance(conditional, ListSampler) else "subnets, at least"
        parts.append(_table([f"{metric} ({model.estimators[metric].unit})", header], counts))
    parts.append(_describe_data(runner))
    if steps is not None:
        parts.append(_describe_steps(runner, steps.seconds))
    elif isinstance(loop, ConstrainedSearchLoop):
        parts.append(_describe_candidate(loop))
    return "\n\n".join(part for part in parts if part)


class _Enough(Exception):  # noqa: N818 - no error
    """Raised when enough steps were made."""


class _StepTimes(Hook):
    """Durations of the first steps, from the end of one to the end of the next; then the training ends."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if not self._last:
            self._last = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        now = _now()
        self.seconds.append(now - self._last)
        self._last = now
        if len(self.seconds) >= min(_STEPS, len(runner.train_dataloader)):
            raise _Enough


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first to the left and numbers to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(line, widths, strict=True)) for line in lines)
    )


def _describe_space(space: SearchSpace) -> str:
    rows = []
    for dimension in space.dimensions:
        values = [str(value) for value in dimension.values]
        if len(values) > _VALUES_SHOWN:
            values = [*values[: _VALUES_SHOWN // 2], "…", *values[-_VALUES_SHOWN // 2 :]]
        rows.append([dimension.name, dimension.kind, str(len(dimension.values)), " ".join(values)])
    table = _table(["dimension", "kind", "choices", "values"], rows)
    return f"search space: {len(space)} dimensions, {space.size:,} subnets\n{table}"


# Metric -> its unit, the cost of every subnet, and value indices (2, D) of the smallest and the largest one.
_Costs = dict[str, tuple[str, AdditiveCost, np.ndarray]]


def _costs_of(runner: Runner, model: Any, space: SearchSpace) -> _Costs:
    """Costs as the method counts them; of SPOS' supernet, as its search will."""
    if isinstance(model, PSS):
        ends = space.encode([space.smallest, space.largest])
        return {name: (model.estimators[name].unit, cost, ends) for name, cost in model.costs.items()}
    loop = runner.train_loop
    if isinstance(model, Cream):
        units, costs = {"flops": FlopsEstimator.unit}, {"flops": model.flops}
    elif isinstance(loop, ConstrainedSearchLoop):
        units, costs = getattr(loop.estimator, "units", {}), dict(loop.sampler.costs)
    elif all(dimension.kind == "op" for dimension in space.dimensions):
        images = model.data_preprocessor(first_image(runner.train_dataloader), False)["inputs"]
        estimator = OneShotResourceEstimator(images.shape[-1])
        units, costs = estimator.units, estimator.build_costs(model.architecture, model.mutator)
    else:
        return {}
    return {name: (units.get(name, ""), cost, _ends_of(cost)) for name, cost in costs.items()}


def _ends_of(cost: AdditiveCost) -> np.ndarray:
    """Value indices (2, D) of the cheapest and the dearest subnet. Ops have no order, but each adds its own cost."""
    space = cost.space
    ends = space.encode([space.smallest, space.largest])
    for place, dimension in enumerate(space.dimensions):
        if dimension.kind == "op":
            subnets = np.repeat(ends[:1], len(dimension.values), axis=0)
            subnets[:, place] = np.arange(len(dimension.values))
            costs = cost(subnets)
            ends[:, place] = costs.argmin(), costs.argmax()
    return ends


def _describe_costs(costs: _Costs) -> str:
    """Resources of the smallest and the largest subnet, and the median over draws from the space's distribution."""
    rows = []
    for name, (unit, cost, ends) in costs.items():
        drawn = cost.space.draw(_DRAWS, np.random.default_rng(0))
        low, high = cost(ends)
        title = f"{name} ({unit})" if unit else name
        rows.append([title, *(f"{value:.6g}" for value in (low, np.median(cost(drawn)), high))])
    return _table(["resource", "smallest", f"median of {_DRAWS:,} draws", "largest"], rows) if rows else ""


def _describe_data(runner: Runner) -> str:
    loops = {"training": runner.train_loop, "validation": runner.val_loop, "test": runner.test_loop}
    parts = [f"{name} {len(loop.dataloader.dataset):,}" for name, loop in loops.items() if loop is not None]
    return "images: " + ", ".join(parts)


def _describe_steps(runner: Runner, seconds: list[float]) -> str:
    loader, loop = runner.train_dataloader, runner.train_loop
    later = statistics.median(seconds[1:] or seconds)
    return (
        f"a step of {loader.batch_size} images: {later:.3g} s (the first {seconds[0]:.3g} s), {_describe_memory()}\n"
        f"{loop.max_iters:,} steps, {loop.max_epochs} epochs of {len(loader):,}: {_duration(loop.max_iters * later)} "
        "at this pace, without evaluation"
    )


@torch.no_grad()
def _describe_candidate(loop: ConstrainedSearchLoop) -> str:
    """Memory and time of evaluating the dearest candidate, from some of its batches."""
    cost = next(iter(loop.sampler.costs.values()))
    loop.model.mutator.activate(loop.space.decode(_ends_of(cost)[1]))
    loop.model.eval()
    times = [_now()]
    for batch in itertools.islice(loop.dataloader, _STEPS):
        loop.model.val_step(batch)
        times.append(_now())
    seconds = [later - earlier for earlier, later in itertools.pairwise(times)]
    batches, later = len(loop.dataloader), statistics.median(seconds[1:] or seconds)
    if loop.predictor is None:
        count, origin = loop.max_epochs * loop.num_candidates, f"{loop.max_epochs} epochs of {loop.num_candidates}"
    else:
        samples = loop.predictor.train_samples
        count = loop.top_k + (samples if isinstance(samples, int) else 0)
        origin = "the predictor's samples and its best"
    return (
        f"a candidate on {len(loop.dataloader.dataset):,} images: {_duration(batches * later)} at the pace of "
        f"{len(seconds)} batches, {_describe_memory()}\n"
        f"{count:,} candidates at most, {origin}: {_duration(count * batches * later)}, without calibrating BN"
    )


def _now() -> float:
    """Seconds, when the device has done all that it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _describe_memory() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB of {torch.cuda.get_device_name()} at most"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:,.0f} MiB in this process at most"


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.3g} hours" if hours >= 1 else f"{60 * hours:.3g} minutes"
