"""A shipped recipe on a folder of one's own images."""

from __future__ import annotations

import copy
import runpy
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from pss_razor.config.shipped import config_folder
from pss_razor.core import ConfigError, choose_depths, released_model

Settings = MutableMapping[str, Any]

_LOADERS = {
    "train_dataloader": "train",
    "val_dataloader": "val",
    "selection_dataloader": "val",
    "test_dataloader": "test",
}
_SCORING = "scoring_dataloader"
_SIZES = ("scale", "crop_size")
_LOADING = ("LoadImageFromFile", "LoadRandomResizedCrop")


def use_image_folder(
    config: Settings,
    data_root: str,
    num_classes: int,
    image_size: int,
    *,
    train: str = "train",
    val: str | None = "val",
    test: str | None = None,
    num_targets: int | None = None,
    epochs: int | None = None,
) -> None:
    """Put a recipe on a folder of images, ``data_root/train/<class>/<image>``; everything else follows.

    Pipelines, resolutions, head, top-k and the data of validation, test and search are set to fit the images.
    Constraints get as many targets as they had, between the smallest and the largest subnet; a search's range of FLOPs
    is scaled with the area of the images. If the image size or the number of classes changes, a latency estimator gets
    the path of a table that is still to be measured for this network (``pss-latency``).

    A recipe that scores its pools on images held out from training holds out a tenth of the training images for that.

    A recipe keeps its augmentations, but one on digits or CIFAR-10 gets those of ImageNet. Cream's depths stay those
    that follow from ``flops_range``.

    Args:
        config: In a config file ``_base_``, after it has been set; or a config that was read. Changed in place.
        data_root: Folder of the dataset.
        num_classes: Classes, the folders of each split.
        image_size: Side of the images that the largest resolution sees, in pixels; they are resized and cropped to it.
        train: Folder of the training images below ``data_root``.
        val: Folder of the images to choose subnets by. None holds out a tenth of the training images for that.
        test: Folder of the images that accuracies are measured on. None takes those of ``val``, as on ImageNet.
        num_targets: Targets of each constraint, if not as many as the recipe has.
        epochs: Length of the training, if not that of the recipe; all schedules follow.

    Example:
        .. code-block:: python

            _base_ = "pss_razor::pss/pss_mbv2_flops.py"

            from pss_razor.config import use_image_folder

            use_image_folder(_base_, "data/flowers", num_classes=3, image_size=96)

    Raises:
        ConfigError: A number cannot work, ``config`` is no recipe of images, or ``val`` is missing and it scores pools.
    """
    least = {"num_classes": 2, "image_size": 32, "num_targets": 2, "epochs": 1}
    given = dict(num_classes=num_classes, image_size=image_size, num_targets=num_targets, epochs=epochs)
    for name, value in given.items():
        if value is not None and (not isinstance(value, int) or value < least[name]):
            raise ConfigError(f"use_image_folder: {name} = {value!r} must be a whole number, at least {least[name]}")
    if "model" not in config or "train_dataloader" not in config:
        raise ConfigError("use_image_folder: give it a recipe, in a config file _base_ after it has been set")

    old_size = _image_size(config)
    if _dataset(config["train_dataloader"])["pipeline"][0]["type"] not in _LOADING:
        _take_images_of_imagenet(config)
    datasets = _datasets(data_root, train, val, test, any(split == "scoring" for split, _ in _loaders(config)))
    for split, loader in _loaders(config):
        _use_dataset(loader, datasets[split])
    _choose_on_images_of_their_own(config, test is not None)
    resize_images(config, image_size)
    old_classes = _set_classes(config, num_classes)
    if (image_size, num_classes) != (old_size, old_classes):
        for estimator in config["model"].get("estimators", {}).values():
            if "table" in estimator:
                name = f"{Path(estimator['table']).stem}_{image_size}px_{num_classes}_classes.json"
                estimator["table"] = f"data/latency_tables/{name}"
    _spread_targets(config, num_targets, (image_size / old_size) ** 2)
    if epochs is not None:
        set_epochs(config, epochs)


def resize_images(config: Settings, image_size: int) -> None:
    """Change the image size of a recipe, in its pipelines and its model.

    Sizes of all pipelines change in proportion. The resolutions of a supernet go down from ``image_size`` in steps of 8
    (of 4 below 64 pixels), as far as the recipe's go in proportion.

    Args:
        config: In a config file ``_base_``; or a config that was read. Changed in place.
        image_size: Side of the images, in pixels.
    """
    old_size = _image_size(config)
    pipelines = {id(_dataset(loader)["pipeline"]): _dataset(loader)["pipeline"] for _, loader in _loaders(config)}
    for name in ("train_pipeline", "test_pipeline"):  # of which a config may make others
        if name in config:
            pipelines[id(config[name])] = config[name]
    transforms = {id(transform): transform for pipeline in pipelines.values() for transform in pipeline}
    for transform in transforms.values():
        for name in _SIZES:
            if isinstance(transform.get(name), int):
                transform[name] = transform[name] * image_size // old_size
    for part in _parts(config):
        if isinstance(part.get("resolutions"), list | tuple):
            part["resolutions"] = _resolutions(image_size, min(part["resolutions"]) / max(part["resolutions"]))
        if part.get("input_size") is not None:
            part["input_size"] = image_size
        if str(part.get("type")).endswith("CreamMobileNet"):
            _fix_cream(part, image_size)


def _fix_cream(backbone: Settings, image_size: int) -> None:
    """Replace a range of FLOPs or a released model by the depths or ops they give, if the image size differs."""
    if backbone.get("flops_range") is not None:
        depths, natural_size = choose_depths(backbone["flops_range"])
        new: dict[str, Any] = {"depths": depths}
    elif backbone.get("model_selection") is not None:
        arch, natural_size = released_model(backbone["model_selection"])
        new = {"arch": arch}
    else:
        return
    if natural_size != image_size:
        for name in ("flops_range", "model_selection"):
            backbone.pop(name, None)
        backbone.update(new, input_size=image_size)


def _resolutions(image_size: int, smallest: float) -> list[int]:
    step = 8 if image_size >= 64 else 4
    return sorted(range(image_size, int(image_size * smallest) - 1, -step))


def _parts(config: Settings) -> Iterator[Settings]:
    """All dicts of a config but data loaders: models, heads, estimators, variables that they were made of."""

    def walk(value: Any) -> Iterator[Settings]:
        if isinstance(value, MutableMapping):
            yield value
            for name, child in value.items():
                if name not in (*_LOADERS, "dataloader", _SCORING):
                    yield from walk(child)
        elif isinstance(value, list | tuple):
            for child in value:
                yield from walk(child)

    for name, value in config.items():
        if name not in (*_LOADERS, _SCORING):
            yield from walk(value)


def _loaders(config: Settings) -> Iterator[tuple[str, Settings]]:
    """The data loaders of a config, each with the split that it reads."""
    for name, split in _LOADERS.items():
        if config.get(name):
            yield split, config[name]
    for owner, name in (("test_cfg", "selection_dataloader"), ("train_cfg", "dataloader")):
        if (config.get(owner) or {}).get(name):
            yield "val", config[owner][name]
    sampler = (config.get("default_hooks") or {}).get("subnet_sampler") or {}
    if sampler.get(_SCORING):
        yield "scoring", sampler[_SCORING]
        if config.get(_SCORING):  # the variable that it was set by
            yield "scoring", config[_SCORING]


def _dataset(loader: Settings) -> Settings:
    """The dataset of images of a data loader, inside of a wrapper where there is one."""
    dataset = loader["dataset"]
    while "pipeline" not in dataset:
        dataset = dataset["dataset"]
    return dataset


def _image_size(config: Settings) -> int:
    """Side of the images that the training pipeline makes."""
    sizes = [transform.get(name) for transform in _dataset(config["train_dataloader"])["pipeline"] for name in _SIZES]
    whole = [size for size in sizes if isinstance(size, int)]
    if not whole:
        raise ConfigError("the training pipeline of this recipe does not say of what size its images are")
    return whole[-1]


def _datasets(data_root: str, train: str, val: str | None, test: str | None, scores: bool) -> dict[str, dict[str, Any]]:
    """The dataset of each split, without a pipeline; ``scores`` says whether pools have images of their own."""
    if scores and val is None:
        raise ConfigError(
            "use_image_folder: this recipe scores its pools on a tenth of the training images, and no other tenth can "
            "be held out to choose by; give val, a folder of other images"
        )

    def folder(name: str) -> dict[str, Any]:
        return dict(type="ImageFolder", data_root=data_root, data_prefix=name)

    def fold(test_mode: bool) -> dict[str, Any]:
        return dict(type="mmcls.KFoldDataset", num_splits=10, seed=0, test_mode=test_mode, dataset=folder(train))

    whole = val is not None and not scores
    datasets = {"train": folder(train) if whole else fold(False), "val": folder(val) if val else fold(True)}
    return {
        **datasets,
        "test": folder(test) if test else datasets["val"],
        **({"scoring": fold(True)} if scores else {}),
    }


def _use_dataset(loader: Settings, dataset: dict[str, Any]) -> None:
    pipeline = _dataset(loader)["pipeline"]
    loader["dataset"] = copy.deepcopy(dataset)
    inner = loader["dataset"]
    while "data_prefix" not in inner:
        inner = inner["dataset"]
    inner["pipeline"] = pipeline


def _choose_on_images_of_their_own(config: Settings, has_test_images: bool) -> None:
    """Let the test of pools choose subnets on the validation images, if there are other images for the test."""
    if str((config.get("test_cfg") or {}).get("type")).endswith("PoolTestLoop"):
        config["test_cfg"]["selection_dataloader"] = (
            copy.deepcopy(config["val_dataloader"]) if has_test_images else None
        )


def _take_images_of_imagenet(config: Settings) -> None:
    """Take loaders, pipelines and statistics from the ImageNet recipes, which read files; batch sizes stay."""
    imagenet = runpy.run_path(str(config_folder() / "_base_" / "datasets" / "imagenet.py"))
    for split, loader in _loaders(config):
        batch_size = loader["batch_size"]
        loader.clear()
        loader.update(copy.deepcopy(imagenet["train_dataloader" if split == "train" else "val_dataloader"]))
        loader["batch_size"] = batch_size
    for name in ("train_pipeline", "test_pipeline"):
        config[name] = copy.deepcopy(imagenet[name])
    statistics = runpy.run_path(str(config_folder() / "_base_" / "data_preprocessor.py"))["data_preprocessor_cfg"]
    for part in _parts(config):
        if str(part.get("type")).endswith("ClsDataPreprocessor"):
            part.update({name: statistics[name] for name in ("mean", "std", "to_rgb")})


def _set_classes(config: Settings, num_classes: int) -> int:
    """Set the number of classes of all heads, and leave out the top-k that say nothing; returns the old number."""
    old = num_classes
    for part in _parts(config):
        if "num_classes" in part:
            old, part["num_classes"] = part["num_classes"], num_classes
        if "topk" in part:
            ks = part["topk"] if isinstance(part["topk"], list | tuple) else (part["topk"],)
            part["topk"] = tuple(k for k in ks if k < num_classes) or (1,)
    return old


def _spread_targets(config: Settings, num_targets: int | None, area: float) -> None:
    constraints = config["model"].get("constraints")
    if constraints is not None:
        config["model"]["constraints"] = [
            dict(metric=constraint["metric"], num_targets=num_targets or _count(constraint))
            for constraint in constraints
        ]
    search = (config.get("train_cfg") or {}).get("constraints_range") or {}
    if "flops" in search:
        search["flops"] = tuple(area * flops for flops in search["flops"])


def _count(constraint: Settings) -> int:
    if "num_targets" in constraint:
        return constraint["num_targets"]
    return round((constraint["last"] - constraint["first"]) / constraint["step"]) + 1


def set_epochs(config: Settings, epochs: int) -> None:
    """Change the length of a recipe's training; schedules and what else counts epochs change in proportion.

    Args:
        config: In a config file ``_base_``; or a config that was read. Changed in place.
        epochs: At least 1.

    Raises:
        ConfigError: The recipe counts iterations.
    """
    train = config["train_cfg"]
    if not train.get("by_epoch"):
        raise ConfigError(f"{epochs} epochs are asked for, but this recipe does not count epochs; leave them out")
    factor = epochs / train["max_epochs"]
    train["max_epochs"] = epochs
    train["val_interval"] = max(1, round(train.get("val_interval", 1) * factor))
    schedulers = config.get("param_scheduler") or []
    for scheduler in [schedulers] if isinstance(schedulers, MutableMapping) else schedulers:
        if scheduler.get("begin"):  # after a warm-up, of one epoch at least
            scheduler["begin"] = max(1, round(scheduler["begin"] * factor))
        if "end" in scheduler:
            scheduler["end"] = max(scheduler.get("begin", 0) + 1, round(scheduler["end"] * factor))
        if "milestones" in scheduler:
            scheduler["milestones"] = sorted({max(1, round(epoch * factor)) for epoch in scheduler["milestones"]})
    for hook in (config.get("default_hooks") or {}).values():
        if "meta_start_epoch" in (hook or {}):
            hook["meta_start_epoch"] = min(epochs - 1, round(hook["meta_start_epoch"] * factor))
