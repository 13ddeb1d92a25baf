"""Shipped recipes on a folder of images: three classes, PNG files, 96 pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pss_razor.config import list_configs, resize_images, use_image_folder
from pss_razor.core import ConfigError
from pss_razor.engine.launch import build_runner, load_config
from pss_razor.registry import DATASETS, TRANSFORMS

from mmengine.config import Config

pytestmark = pytest.mark.usefixtures("stand_in_weights")
CLASSES = ("daisy", "rose", "tulip")
SHIPPED = sorted(list_configs())
# One of every method, on files of its own and of digits; what else there is differs in what test_every_recipe looks at.
KINDS = [
    "pss/pss_mbv2_flops",
    "pss/pss_mbv2_flops_digits",
    "pss/pss_convnext_tiny_pretrained",
    "nas/spos/spos_supernet_shufflenetv2_digits",
    "nas/spos/spos_supernet_mobilenet_proxyless_gpu_8xb128_in1k",
    "nas/cream/cream_supernet_8xb128_in1k",
    "nas/cream/cream_14_8xb128_in1k",
]


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """``data/flowers/{train,val,test}/<class>/<number>.png`` of several sizes, in a folder to work in."""
    folder, generator = tmp_path_factory.mktemp("flowers"), np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 8), ("test", 5)):
        for label, name in enumerate(CLASSES):
            path = folder / "data" / "flowers" / split / name
            path.mkdir(parents=True)
            for number in range(count):
                height, width = generator.integers(70, 140, 2)
                image = generator.integers(0, 80, (height, width, 3), dtype=np.uint8)
                image[..., label] += 100
                cv2.imwrite(str(path / f"{number}.png"), image)
    return folder


def write_config(folder: Path, recipe: str, arguments: str = "num_classes=3, image_size=96", more: str = "") -> Path:
    path = folder / f"{recipe.rpartition('/')[2]}_flowers.py"
    path.write_text(
        f"""_base_ = "pss_razor::{recipe}.py"

from pss_razor.config import use_image_folder

use_image_folder(_base_, "data/flowers", {arguments})
{more}"""
    )
    return path


@pytest.fixture
def apply(tmp_path):
    """``apply(recipe, arguments, more)``: a config of one's own on a recipe, as it is read."""
    return lambda *arguments: Config.fromfile(write_config(tmp_path, *arguments))


def loaders_of(config):
    parts = [config.train_dataloader, config.val_dataloader, config.test_dataloader]
    return [*filter(None, [*parts, (config.test_cfg or {}).get("selection_dataloader")])]


def pipeline_of(loader):
    return loader.dataset.get("dataset", loader.dataset).pipeline


@pytest.mark.parametrize("recipe", SHIPPED)
def test_every_recipe(apply, recipe):
    config = apply(recipe, "num_classes=3, image_size=96, test='test'")
    np.random.seed(0)
    image = np.random.randint(256, size=(110, 130, 3), dtype=np.uint8)
    for loader in loaders_of(config):
        results = dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2], gt_label=0)
        assert pipeline_of(loader)[0].type == "LoadImageFromFile"
        for transform in pipeline_of(loader)[1:]:
            results = TRANSFORMS.build(transform)(results)
        assert results["inputs"].shape == (3, 96, 96)
    trained_on = config.train_dataloader.dataset  # a fold, if pools are scored on the rest
    assert trained_on.get("dataset", trained_on).data_prefix == "train"
    assert config.test_dataloader.dataset.data_prefix == "test"
    for loader in loaders_of(config)[1:-1]:
        assert loader.dataset.data_prefix in ("val", "test")
    text = str(config.model.to_dict())
    assert text.count("'num_classes': 3") == text.count("'num_classes'") >= 1
    for evaluator in (config.val_evaluator, config.test_evaluator):
        assert evaluator is None or evaluator.topk == (1,)
    resolutions = config.model.get("architecture", {}).get("resolutions")
    if resolutions is not None:
        assert resolutions in ([56, 64, 72, 80, 88, 96], [48, 56, 64, 72, 80, 88, 96], [96])
    for constraint in config.model.get("constraints", ()):
        assert set(constraint) == {"metric", "num_targets"} and constraint.num_targets >= 5
    for estimator in config.model.get("estimators", {}).values():
        assert "table" not in estimator or estimator.table.endswith("_96px_3_classes.json")


class TestSettings:
    def test_statistics_are_those_of_images_in_files(self, apply):
        """Digits come as R, G, B arrays with another mean."""
        digits, imagenet = (apply(f"pss/{name}").model for name in ("pss_mbv2_flops_digits", "pss_mbv2_flops"))
        assert digits.data_preprocessor == imagenet.data_preprocessor

    def test_own_settings_come_after(self, apply):
        more = "train_dataloader = dict(batch_size=8)\nmodel = dict(architecture=dict(resolutions=[64, 96]))\n"
        config = apply("pss/pss_mbv2_flops", "num_classes=3, image_size=96", more)
        assert config.train_dataloader.batch_size == 8 and config.model.architecture.resolutions == [64, 96]
        assert config.train_dataloader.dataset.data_root == "data/flowers"

    def test_as_many_targets_as_the_recipe_or_as_wanted(self, apply):
        assert [dict(c) for c in apply("pss/pss_mbv2_multi").model.constraints] == [
            dict(metric="flops", num_targets=24),
            dict(metric="latency_gpu", num_targets=18),
            dict(metric="latency_cpu", num_targets=17),
        ]
        few = apply("pss/pss_mbv2_flops", "num_classes=3, image_size=96, num_targets=6")
        assert [dict(c) for c in few.model.constraints] == [dict(metric="flops", num_targets=6)]

    def test_epochs(self, apply):
        config = apply("pss/pss_mbv2_flops", "num_classes=3, image_size=96, epochs=25")
        assert config.train_cfg.max_epochs == config.param_scheduler.end == 25 and config.train_cfg.val_interval == 1
        cream = apply("nas/cream/cream_604_8xb128_in1k", "num_classes=3, image_size=96, epochs=51")
        assert [(s.get("begin"), s.get("end")) for s in cream.param_scheduler] == [(0, 1), (1, 50)]
        board = apply("nas/cream/cream_supernet_8xb128_in1k", "num_classes=3, image_size=96, epochs=12")
        assert board.default_hooks.path_board.meta_start_epoch == 2

    def test_images_to_choose_by(self, apply):
        """Of the folder val, or every tenth training image; tests on a folder of its own, or on the same."""
        same = apply("pss/pss_mbv2_flops")
        assert same.test_dataloader == same.val_dataloader and same.test_cfg.selection_dataloader is None
        own = apply("pss/pss_mbv2_flops", "num_classes=3, image_size=96, test='test'")
        assert own.test_cfg.selection_dataloader == own.val_dataloader
        folds = apply("pss/pss_mbv2_flops", "num_classes=3, image_size=96, val=None, test='test'")
        assert (folds.train_dataloader.dataset.test_mode, folds.val_dataloader.dataset.test_mode) == (False, True)
        assert folds.test_dataloader.dataset.data_prefix == "test"

    def test_folds_share_no_image(self, apply, flowers, monkeypatch):
        monkeypatch.chdir(flowers)
        config = apply("pss/pss_mbv2_flops", "num_classes=3, image_size=96, val=None")
        parts = [DATASETS.build(loader.dataset) for loader in (config.train_dataloader, config.val_dataloader)]
        paths = [{part.get_data_info(i)["img_path"] for i in range(len(part))} for part in parts]
        assert len(paths[0]) == 54 and len(paths[1]) == 6 and not paths[0] & paths[1]

    def test_pools_are_scored_on_a_tenth_of_the_training_images(self, apply):
        config = apply("pss/pss_plus_mbv2_flops_fashion", "num_classes=3, image_size=96")
        scoring = config.default_hooks.subnet_sampler.scoring_dataloader
        assert (scoring.dataset.type, scoring.dataset.test_mode) == ("mmcls.KFoldDataset", True)
        assert (config.train_dataloader.dataset.type, config.train_dataloader.dataset.test_mode) == (
            "mmcls.KFoldDataset",
            False,
        )
        assert scoring.dataset.dataset.data_prefix == config.train_dataloader.dataset.dataset.data_prefix == "train"
        assert scoring.dataset.dataset.pipeline == config.val_dataloader.dataset.pipeline
        assert config.val_dataloader.dataset.data_prefix == "val"
        plain = apply("pss/pss_mbv2_flops_fashion", "num_classes=3, image_size=96")
        assert plain.train_dataloader.dataset.type == "ImageFolder"

    def test_pools_that_are_scored_need_images_to_choose_by(self, apply):
        with pytest.raises(ConfigError, match="give val"):
            apply("pss/pss_plus_mbv2_flops_fashion", "num_classes=3, image_size=96, val=None")

    def test_a_search_takes_the_same_share_of_its_space(self, apply):
        search = apply("nas/spos/spos_evolution_search_shufflenetv2_8xb2048_in1k").train_cfg
        assert search.constraints_range.flops == pytest.approx((0, 330 * (96 / 224) ** 2))
        assert search.estimator_cfg.input_size == 96 and search.dataloader.dataset.data_prefix == "val"
        assert search.evaluator.topk == (1,) and search.dataloader.batch_size == 2048

    def test_ten_classes_have_a_top_5(self, apply):
        config = apply("pss/pss_mbv2_flops", "num_classes=10, image_size=96")
        assert config.test_evaluator.topk == (1, 5)

    def test_the_recipe_itself_changes_nothing(self, apply):
        """1000 classes at 224 pixels: the shipped config on another folder, latency table and all."""
        own = apply("pss/pss_mbv2_cpu", "num_classes=1000, image_size=224")
        shipped = Config.fromfile(list_configs()["pss/pss_mbv2_cpu"])
        assert own.model.to_dict() == shipped.model.to_dict()
        assert pipeline_of(own.train_dataloader) == pipeline_of(shipped.train_dataloader)
        assert own.train_pipeline == shipped.train_pipeline and own.test_pipeline == shipped.test_pipeline

    def test_variables_for_pipelines_of_ones_own(self, apply):
        config = apply("pss/pss_mbv2_flops_digits")
        assert config.train_pipeline == pipeline_of(config.train_dataloader)
        assert config.test_pipeline == pipeline_of(config.test_dataloader)

    def test_a_recipe_that_decodes_small_keeps_that(self, tmp_path):
        crop = dict(type="LoadRandomResizedCrop", scale=224, crop_ratio_range=(0.5, 1.0))
        config = Config.fromfile(list_configs()["pss/pss_mbv2_flops"])
        config.train_dataloader.dataset.pipeline = [crop, *config.train_dataloader.dataset.pipeline[2:]]
        use_image_folder(config, "data/flowers", num_classes=3, image_size=96)
        assert pipeline_of(config.train_dataloader)[0] == {**crop, "scale": 96}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("num_classes=1, image_size=96", "num_classes = 1 must be a whole number, at least 2"),
            ("num_classes=3, image_size=16", "image_size = 16 must be a whole number, at least 32"),
            ("num_classes=3, image_size=(96, 96)", r"image_size = \(96, 96\) must be"),
            ("num_classes=3, image_size=96, epochs=0", "epochs = 0"),
        ],
    )
    def test_impossible_numbers(self, apply, arguments, message):
        with pytest.raises(ConfigError, match=message):
            apply("pss/pss_mbv2_flops", arguments)

    def test_no_recipe(self):
        with pytest.raises(ConfigError, match="give it a recipe"):
            use_image_folder({}, "data", 3, 96)


def test_released_models_keep_their_own_size():
    config = Config.fromfile(list_configs()["nas/cream/cream_604_8xb128_in1k"])
    config.model.backbone.model_selection = 14
    resize_images(config, 64)
    assert dict(config.model.backbone) == dict(type="mmrazor.CreamMobileNet", model_selection=14)
    resize_images(config, 96)
    assert config.model.backbone.input_size == 96 and "model_selection" not in config.model.backbone


@pytest.mark.slow
@pytest.mark.parametrize("recipe", KINDS)
def test_runs(flowers, monkeypatch, tmp_path, recipe):
    """Eight lines at most: an epoch, and the final test."""
    monkeypatch.chdir(flowers)
    more = "train_dataloader = dict(batch_size=20, num_workers=1)\n"
    path = write_config(flowers, recipe, "num_classes=3, image_size=64, num_targets=3, epochs=1", more)
    assert len(path.read_text().splitlines()) <= 8
    config = load_config(
        str(path),
        ["default_hooks.path_board.meta_start_epoch=0"] if "supernet_8xb128" in recipe and "cream" in recipe else None,
        "none",
        str(tmp_path),
    )
    config.experiment_name = recipe.replace("/", "_")
    runner = build_runner(config)
    runner.train()
    metrics = runner.test()
    assert metrics and all(0 <= value <= 100 for name, value in metrics.items() if "top1" in name)
