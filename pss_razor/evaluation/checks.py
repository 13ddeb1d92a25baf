"""What a runner must have for the method, checked before any long work."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from pss_razor.core import ConfigError, DataError
from pss_razor.models import PSS
from pss_razor.registry import LOOPS, MODELS

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, TestLoop, ValLoop


def has_sampler_state(config: Config) -> bool:
    """Whether checkpoints of a config have the state of a subnet sampler: with pools, or of a baseline."""
    model = MODELS.get(config.model.get("type", ""))
    return isinstance(model, type) and issubclass(model, PSS)


def check_loop_settings(config: Config) -> None:
    """Check the keys of ``val_cfg`` and ``test_cfg`` without building the loops, for which their data must be there.

    Raises:
        ConfigError: There is no loop of this type, or it takes no such setting.
    """
    for key, default in (("val_cfg", ValLoop), ("test_cfg", TestLoop)):
        settings = config.get(key) or {}
        kind = settings.get("type", default)
        loop = LOOPS.get(kind) if isinstance(kind, str) else kind
        if loop is None:
            raise ConfigError(f"{key}.type = {kind!r} is no loop; see configs/_base_/algorithms/ for an example")
        known = _settings_of(loop)
        for name in settings.keys() - {"type", *known} if known else ():
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise ConfigError(f"{key} has {name!r}, which {loop.__name__} does not take; {hint}")


def _settings_of(loop: type) -> list[str]:
    """What a config can set of a loop; empty if it cannot be known, of another's loop that takes any keyword."""
    names: list[str] = []
    for base in loop.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = [*inspect.signature(base.__init__).parameters.values()]  # type: ignore[misc]
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
        if not base.__module__.startswith("pss_razor."):
            return []
    return [name for name in names if name not in ("self", "runner", "dataloader", "evaluator")]


def get_model(runner: Runner) -> nn.Module:
    """The model of a runner, unwrapped."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def get_algorithm(runner: Runner) -> PSS:
    """The PSS algorithm of a runner, unwrapped.

    Raises:
        ConfigError: The model is something else.
    """
    model = get_model(runner)
    if not isinstance(model, PSS):
        raise ConfigError(f"the model is a {type(model).__name__}; prioritized pools need model=dict(type='PSS', …)")
    return model


def check_dataloader(model: nn.Module, dataloader: DataLoader, name: str) -> None:
    """Check that a data loader has batches, and as many classes as the head.

    Args:
        model: An algorithm, or a classifier.
        dataloader: The data loader.
        name: Its key in the config, for the error.

    Raises:
        DataError: It has no batch, or another number of classes.
    """
    dataset: Any = dataloader.dataset
    if len(dataloader) == 0:
        raise DataError(
            f"{name} yields no batch: the dataset has {len(dataset)} images, batch_size is {dataloader.batch_size} and "
            f"drop_last is {dataloader.drop_last}; lower the batch size"
        )
    classes = getattr(dataset, "metainfo", {}).get("classes")
    where = "model.architecture" if hasattr(model, "architecture") else "model.cfg"
    classifier = getattr(model, "architecture", model)
    num_classes = getattr(getattr(classifier, "head", None), "num_classes", None)
    if classes is not None and num_classes is not None and len(classes) != num_classes:
        raise DataError(
            f"{name}: the dataset has {len(classes)} classes, the head {num_classes}; set "
            f"{where}.head.num_classes={len(classes)}"
        )


def first_image(dataloader: DataLoader) -> Any:
    """A batch of the first image of a dataset, without starting the loader's workers."""
    return dataloader.collate_fn([dataloader.dataset[0]])


def check_image_size(algorithm: PSS, images: Tensor, name: str) -> None:
    """Check that a pipeline makes images of the size that the supernet expects, its largest resolution.

    Args:
        algorithm: The algorithm.
        images: (N, C, H, W).
        name: Key of the data loader in the config, for the error.

    Raises:
        ConfigError: They are of another size.
    """
    # Of the supernet, which an algorithm may search a part of.
    largest = algorithm.mutator.space.largest.get("resolution")
    where = "the largest of model.architecture.resolutions" if largest is not None else "model.input_size"
    expected = largest if largest is not None else algorithm.input_size
    height, width = images.shape[-2:]
    if expected is not None and (height, width) != (expected, expected):
        raise ConfigError(
            f"{name}: its pipeline makes images of {height} x {width} pixels, but {where} is {expected}; make them "
            "equal: the supernet resizes a batch to smaller resolutions by itself"
        )
