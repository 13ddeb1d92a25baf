"""What keeps a pool from gaining: ``python benchmarks/pool_causes.py RUN --out FILE.json``.

RUN is the work directory of a training with pools. Measures on its last checkpoint, by draws conditional on targets:

- noise: what a batch adds to a subnet's score, for the score of the paper and relative to the largest subnet, beside
  what subnets of a target really differ by; and how well scores of so many visits rank them;
- temperature: how many entries of a pool the softmax draws from, through the training;
- BN calibration: accuracy with statistics of so many batches.

and, of its log, how far the scores drift while they age. Prints figures, and leaves them with a picture beside FILE.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import write_with_picture
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from torch.nn import functional as F

from pss_razor.checkpoints.checkpoint import find_latest_checkpoint
from pss_razor.core import exponential_decay
from pss_razor.engine.launch import build_runner, load_config
from pss_razor.evaluation.bn_calibration import calibrate_bn, isolated_bn_statistics, normalised_by_batches
from pss_razor.evaluation.held_out_scores import load_held_out_images
from pss_razor.evaluation.pool_evaluator import isolated_evaluation

VISITS = (1, 3, 10, 30, 100, 300, 1000)
CALIBRATIONS = (1, 3, 9, 27)
_TRIALS = 200


def cross_entropies(runner: Any, targets: list, subnets: int, batches: int, batch: int) -> np.ndarray:
    """Of fresh draws on training batches, in training mode: (targets, 1 + subnets, batches), the largest first."""
    algorithm = runner.model
    sampler = next(hook.sampler for hook in runner.hooks if hasattr(hook, "sampler"))
    images, labels = load_held_out_images(algorithm, runner.train_dataloader, batches * batch, seed=1)
    generator = np.random.default_rng(0)
    result = np.empty((len(targets), 1 + subnets, batches))
    with isolated_evaluation(algorithm), normalised_by_batches(algorithm), torch.no_grad():

        def losses_of(subnet: Any) -> list[float]:
            algorithm.mutator.activate(subnet)
            parts = zip(images.split(batch), labels.split(batch), strict=True)
            return [float(F.cross_entropy(algorithm(x, mode="tensor").float(), y)) for x, y in parts]

        largest = losses_of(algorithm.space.largest)
        for row, (metric, target) in enumerate(targets):
            indices, _ = sampler.conditional_samplers[metric].draw_many(target, subnets, generator)
            result[row, 0] = largest
            for column, own in enumerate(indices):
                result[row, 1 + column] = losses_of(algorithm.space.decode(own))
    return result


def noise(losses: np.ndarray) -> dict[str, Any]:
    """Standard deviations, and the tau that scores of so many visits would have."""
    generator = np.random.default_rng(0)
    plain, relative = -losses[:, 1:], losses[:, :1] - losses[:, 1:]
    found: dict[str, Any] = {"visits": VISITS}
    for name, scores in (("plain", plain), ("relative", relative)):
        of_batch = float(scores.std(axis=2, ddof=1).mean())
        means = scores.mean(axis=2)
        of_subnets = np.sqrt(np.maximum(means.var(axis=1, ddof=1) - of_batch**2 / scores.shape[2], 0)).mean()
        taus = []
        for visits in VISITS:
            # Every subnet meets batches of its own. What the batches do is drawn from what they did here.
            trials = []
            for _ in range(_TRIALS // len(scores)):
                for own, truth in zip(scores, means, strict=True):
                    met = generator.integers(own.shape[1], size=(len(own), visits))
                    trials.append(kendalltau(np.take_along_axis(own, met, 1).mean(1), truth).statistic)
            taus.append(float(np.mean(trials)))
        found[name] = dict(
            std_of_batches=of_batch,
            std_of_subnets=float(of_subnets),
            visits_until_equal=float((of_batch / max(of_subnets, 1e-9)) ** 2),
            tau_of_visits=taus,
        )
    return found


def drift(run: Path) -> dict[str, list[float]]:
    """Step and mean score of the logged intervals of a training."""
    (file,) = sorted(run.glob("*/vis_data/scalars.json"))[:1]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row for row in rows if "score" in row]
    return {
        "step": [row["step"] for row in rows],
        "score": [row["score"] for row in rows],
        "relative": [row["score"] + row["largest_ce"] for row in rows],
    }


def temperature(runner: Any, spread: float) -> dict[str, list[float]]:
    """Progress, and how many entries of a pool the softmax of the schedule draws from in effect (perplexity)."""
    hook = next(hook for hook in runner.hooks if hasattr(hook, "temperature"))
    pools = [[entry.score for entry in pool] for pool in hook.sampler.pools.values() if len(pool) > 1]
    progress = np.linspace(0, 1, 21)
    effective = []
    for share in progress:
        now = exponential_decay(*hook.temperature, float(share))
        perplexities = []
        for scores in pools:
            weights = np.exp((np.array(scores) - max(scores)) / now)
            weights /= weights.sum()
            perplexities.append(float(np.exp(-(weights * np.log(weights + 1e-300)).sum())))
        effective.append(float(np.mean(perplexities)))
    return {
        "progress": progress.tolist(),
        "temperature": [exponential_decay(*hook.temperature, float(share)) for share in progress],
        "entries_in_effect": effective,
        "entries": [float(np.mean([len(scores) for scores in pools]))],
        "std_of_scores": [float(np.mean([np.std(scores) for scores in pools]))],
        "std_of_subnets": [spread],
    }


def calibration(runner: Any, images: int) -> dict[str, Any]:
    """Mean accuracy of every pool's best on selection images, with BN statistics of so many training batches."""
    algorithm = runner.model
    hook = next(hook for hook in runner.hooks if hasattr(hook, "sampler"))
    best = [pool.best(1)[0].subnet for pool in hook.sampler.pools.values() if len(pool)]
    chosen_on = runner.test_loop.selection_dataloader or runner.test_loop.dataloader
    x, y = load_held_out_images(algorithm, chosen_on, min(images, len(chosen_on.dataset)), seed=0)
    available = len(runner.train_dataloader.dataset)
    train, _ = load_held_out_images(algorithm, runner.train_dataloader, min(64 * max(CALIBRATIONS), available), seed=2)
    accuracies = []
    for count in CALIBRATIONS:
        right = []
        for subnet in best:
            with isolated_evaluation(algorithm), isolated_bn_statistics(algorithm), torch.no_grad():
                algorithm.mutator.activate(subnet)
                calibrate_bn(algorithm, train.split(64)[:count], lambda batch: algorithm(batch, mode="tensor"))
                logits = torch.cat([algorithm(part, mode="tensor") for part in x.split(500)])
                right.append(100 * float((logits.argmax(1) == y).float().mean()))
        accuracies.append(float(np.mean(right)))
    return {"batches": CALIBRATIONS, "accuracy": accuracies}


def draw(found: dict[str, Any]) -> Figure:
    """A panel for each cause."""
    figure = Figure(figsize=(12, 8), dpi=110, layout="constrained")
    (ranks, ages), (softmax, norms) = figure.subplots(2, 2)
    for name, style in (("plain", "o-"), ("relative", "s--")):
        ranks.plot(VISITS, found["noise"][name]["tau_of_visits"], style, label=name)
    ranks.set(xscale="log", xlabel="visits", ylabel="Kendall's tau with the true order", title="How well scores rank")
    ranks.legend()
    for name, style in (("score", "o-"), ("relative", "s--")):
        ages.plot(found["drift"]["step"], found["drift"][name], style, ms=3, label=name.replace("score", "plain"))
    spread = found["noise"]["plain"]["std_of_subnets"]
    ages.errorbar([found["drift"]["step"][-1]], [found["drift"]["score"][-1]], 2 * spread, capsize=6, color="black")
    ages.set(xlabel="step", ylabel="score", title="Scores drift (bar: ± 2 standard deviations of a target's subnets)")
    ages.legend()
    softmax.plot(found["temperature"]["progress"], found["temperature"]["entries_in_effect"], "o-")
    softmax.axhline(found["temperature"]["entries"][0], ls=":", color="black")
    softmax.set(xlabel="share of the training", ylabel="entries drawn from in effect", title="Softmax by the schedule")
    norms.plot(found["calibration"]["batches"], found["calibration"]["accuracy"], "o-")
    norms.set(xscale="log", xlabel="batches of 64", ylabel="mean top-1, %", title="BN calibration, best of each pool")
    return figure


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="work directory of a training with pools")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .json; the picture goes beside it")
    parser.add_argument("--subnets", type=int, default=12, help="draws of each target")
    parser.add_argument("--batches", type=int, default=40, help="training batches that each of them meets")
    args = parser.parse_args()
    config_file = next(iter(sorted(args.run.glob("*.py"))))
    config = load_config(str(config_file), [], "none", str(args.run))
    config.load_from = str(find_latest_checkpoint(args.run))
    runner = build_runner(config)
    runner.call_hook("before_run")
    runner.load_or_resume()
    runner.test_loop  # noqa: B018 - built when it is first asked for
    sampler = next(hook.sampler for hook in runner.hooks if hasattr(hook, "sampler"))
    losses = cross_entropies(
        runner, list(sampler.pools), args.subnets, args.batches, config.train_dataloader.batch_size
    )
    found: dict[str, Any] = {"run": args.run.name, "noise": noise(losses), "drift": drift(args.run)}
    found["temperature"] = temperature(runner, found["noise"]["plain"]["std_of_subnets"])
    found["calibration"] = calibration(runner, 2000)
    for name in ("plain", "relative"):
        own = found["noise"][name]
        print(f"{name} score, standard deviation of batches: {own['std_of_batches']:.4f}")
        print(f"{name} score, standard deviation of a target's subnets: {own['std_of_subnets']:.4f}")
        print(f"{name} score, visits until both are equal: {own['visits_until_equal']:.1f}")
        taus = ", ".join(f"{visits}: {tau:.2f}" for visits, tau in zip(VISITS, own["tau_of_visits"], strict=True))
        print(f"{name} score, tau after visits: {taus}")
    print(
        "accuracy by batches of BN calibration:", dict(zip(CALIBRATIONS, found["calibration"]["accuracy"], strict=True))
    )
    write_with_picture(args.out, found, draw(found))


if __name__ == "__main__":
    main()
