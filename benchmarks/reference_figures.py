"""Distances to the figures of the authors' program: ``python benchmarks/reference_figures.py [FOLDER]``.

Prints one line a figure. FOLDER holds the reference figures (default: ../shared/reference beside the checkout).
"""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch

from pss_razor.core import Subnet
from pss_razor.engine.launch import load_config
from pss_razor.registry import MODELS

from mmcls.structures import ClsDataSample
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

ROOT = Path(__file__).parents[1]
GROUPS = ("stem", *(f"stage{i}" for i in range(1, 8)))


def subnet_of(record: dict) -> Subnet:
    """A reference subnet; the last conv stays at 1280 whatever its multiplier."""
    widths = zip(GROUPS, record["channels"][:8], strict=True)
    return Subnet({**dict(widths), "resolution": record["resolution"]})


def build(small: bool):
    """Supernet and config of pss_mbv2_flops.py; if ``small``, with the references' 10 classes and small images."""
    config = load_config(str(ROOT / "configs/pss/pss_mbv2_flops.py"), None, "none", None)
    config.model.channels_last = False
    if small:
        config.model.architecture.resolutions = [32, 40, 48, 56, 64]
        config.model.architecture.head.num_classes = 10
        config.model.data_preprocessor = dict(type="mmcls.ClsDataPreprocessor")
    init_default_scope("mmrazor")
    return MODELS.build(config.model), config


def load(algorithm, state: dict) -> dict[str, str]:
    """Load the authors' state dict, matched by position; returns our name -> theirs."""
    names = dict(zip(algorithm.architecture.state_dict(), state, strict=True))
    algorithm.architecture.load_state_dict({own: state[theirs] for own, theirs in names.items()})
    return names


def train(steps: dict, threads: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Largest difference of a loss or score in each recorded step, and the final parameters by the authors' names."""
    torch.set_num_threads(threads)
    algorithm, config = build(small=True)
    names = load(algorithm, steps["initial_state_dict"])
    settings = {key: steps[key] for key in ("lr", "momentum", "nesterov", "weight_decay")}
    config.optim_wrapper.optimizer.update(settings)
    optim_wrapper = build_optim_wrapper(algorithm, config.optim_wrapper)
    algorithm.train()
    differences = []
    for step in steps["steps"]:
        algorithm.sampled_subnet = subnet_of(step["subnet"])
        samples = [ClsDataSample().set_gt_label(int(label)) for label in step["labels"]]
        logs = algorithm.train_step(dict(inputs=step["inputs"], data_samples=samples), optim_wrapper)
        pairs = dict(largest_ce="max_ce", score="subnet_metric", sampled_kl="subnet_kl", smallest_kl="min_kl")
        differences.append(max(abs(float(logs[own]) - float(step[theirs])) for own, theirs in pairs.items()))
    state = algorithm.architecture.state_dict()
    return differences, {theirs: state[own] for own, theirs in names.items() if theirs in steps["final_parameters"]}


def main() -> None:
    """Print all figures."""
    logging.disable(logging.INFO)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "reference"
    algorithm, _ = build(small=False)
    subnets = json.loads((folder / "mbv2_subnet_costs.json").read_text())["subnets"]
    predicted = algorithm.costs["flops"](algorithm.space.encode([subnet_of(record) for record in subnets]))
    error = np.abs(predicted / [record["mflops"] for record in subnets] - 1).max()
    print(f"flops_largest_relative_error: {error:.1e} ({len(subnets)} subnets)")

    forward = torch.load(folder / "mbv2_forward.pt", weights_only=True)
    algorithm, _ = build(small=True)
    load(algorithm, forward["state_dict"])
    for mode in ("eval", "train"):
        algorithm.train(mode == "train")
        with torch.no_grad():
            logits = []
            for record in forward["subnets"]:
                with algorithm.mutator.active(subnet_of(record)):
                    logits.append(algorithm(forward["inputs"]))
        difference = (torch.stack(logits) - forward[f"logits_{mode}"]).abs().max()
        print(f"logits_{mode}_largest_difference: {difference:.1e} (8 subnets)")

    steps = torch.load(folder / "mbv2_training_steps.pt", weights_only=True)
    differences, one = train(steps, threads=1)
    for number, difference in enumerate(differences, start=1):
        print(f"training_step_{number}_largest_difference: {difference:.1e} (losses and score, one thread)")
    _, two = train(steps, threads=2)

    def median_distance(a: dict, b: dict) -> float:
        return float(np.median([float((a[name] - b[name]).norm() / b[name].norm()) for name in b]))

    reference = median_distance(one, steps["final_parameters"])
    print(f"final_parameters_median_relative_distance: {reference:.1e} (one thread to the record)")
    print(f"final_parameters_median_relative_distance: {median_distance(one, two):.1e} (one thread to two threads)")


if __name__ == "__main__":
    main()
