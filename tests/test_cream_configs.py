"""Cream's configs load, build, and say what the method's description says."""

import math
from pathlib import Path

import pytest
import torch

from pss_razor.models import Cream
from pss_razor.registry import HOOKS, MODELS, TRANSFORMS

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "nas" / "cream"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
RELEASED = {14: (64, 73), 43: (96, 109), 114: (160, 182), 287: (224, 256), 481: (224, 256), 604: (224, 256)}


def load(name):
    return Config.fromfile(FOLDER / f"{name}.py")


def test_there_are_configs():
    assert {"cream_supernet_8xb128_in1k", "cream_subnet_8xb128_in1k", "cream_arch_8xb128_in1k"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_builds(name):
    config = load(name)
    model = MODELS.build(config.model.cfg if config.model.type == "sub_model" else config.model)
    classifier = model.architecture if isinstance(model, Cream) else model
    classes = 10 if "digits" in name else 1000
    with torch.no_grad():
        assert classifier.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, classes)
    for part in (config.train_dataloader, config.test_dataloader, config.val_dataloader):
        for transform in part.dataset.pipeline if part else ():
            TRANSFORMS.build(transform)
    for hook in [*config.default_hooks.values(), *config.get("custom_hooks", [])]:
        HOOKS.build(hook)
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    assert len({group["weight_decay"] for group in optimizer.param_groups}) == 2


@pytest.mark.parametrize("name", RELEASED)
def test_sizes_of_released_models(name):
    size, resize = RELEASED[name]
    config = load(f"cream_{name}_8xb128_in1k")
    assert MODELS.build(config.model.backbone).input_size == size
    assert config.train_dataloader.dataset.pipeline[1].scale == size
    for loader in (config.val_dataloader, config.test_dataloader):
        pipeline = loader.dataset.pipeline
        assert (pipeline[1].scale, pipeline[2].crop_size) == (resize, size)
        assert pipeline[1].interpolation == "bicubic"


def learning_rates(config, epoch_length):
    """LR at the start of every epoch."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=config.optim_wrapper.optimizer.lr)
    schedulers = config.param_scheduler if isinstance(config.param_scheduler, list) else [config.param_scheduler]
    built = []
    for scheduler in schedulers:
        options = dict(scheduler)
        if options.pop("convert_to_iter_based", False):
            cls = PARAM_SCHEDULERS.get(options.pop("type"))
            built.append((cls.build_iter_from_epoch(optimizer, epoch_length=epoch_length, **options), False))
        else:
            built.append((PARAM_SCHEDULERS.build(dict(optimizer=optimizer, **options)), True))
    rates = []
    optimizer.step()
    for _ in range(config.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        for iteration in range(epoch_length):
            for scheduler, by_epoch in built:
                if not by_epoch or iteration == epoch_length - 1:
                    scheduler.step()
    return rates, optimizer.param_groups[0]["lr"]


def test_supernet_schedule():
    rates, last = learning_rates(load("cream_supernet_8xb128_in1k"), 4)
    assert rates == pytest.approx([1 - epoch / 120 for epoch in range(120)], abs=5e-3)
    assert last == pytest.approx(0, abs=3e-3)


def test_supernet_optimizer():
    config = load("cream_supernet_8xb128_in1k")
    config.model.architecture.backbone.flops_range = (0, 114)
    model = MODELS.build(config.model)
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    options = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.architecture.named_parameters():
        assert options[id(parameter)] == (1.0, 0.0 if parameter.ndim == 1 else 1e-4), name
    assert {options[id(p)][0] for p in model.matching.parameters()} == {1e-4}
    assert optimizer.param_groups[0]["nesterov"] and optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("name", [14, 43])
def test_schedule_of_small_models(name):
    rates, _ = learning_rates(load(f"cream_{name}_8xb128_in1k"), 4)
    assert len(rates) == 500 and rates[0] < 1e-3
    # as often as 2.4 epochs have passed
    expected = [0.064 * 0.973 ** math.floor(epoch / 2.4 + 1e-9) for epoch in range(4, 500)]
    assert rates[4:] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", [114, 604])
def test_schedule_of_large_models(name):
    rates, last = learning_rates(load(f"cream_{name}_8xb128_in1k"), 4)
    assert len(rates) == 510 and rates[0] < 1e-3
    assert max(rates) == pytest.approx(0.064, rel=1e-3) and rates.index(max(rates)) in (2, 3)
    assert rates[251] == pytest.approx(0.032, rel=0.02)
    assert rates[500:] == pytest.approx([1e-5] * 10, rel=0.01) and last == rates[-1]


def test_retraining_evaluates_averaged_weights():
    hooks = [load(name).default_hooks.ema for name in ("cream_604_8xb128_in1k", "cream_subnet_digits")]
    assert [(hook.type, 1 - hook.momentum) for hook in hooks] == [("EMAHook", 0.9999), ("EMAHook", 0.95)]
