"""Every shipped config loads and builds; ImageNet's has the paper's values."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from pss_razor import registry
from pss_razor.core import ConfigError, build_conditional_sampler
from pss_razor.engine import PoolTestLoop, PoolValLoop, PrioritizedPoolSamplerHook
from pss_razor.models import PSS, PSSDistributedDataParallel
from pss_razor.registry import FUNCTIONS, HOOKS, LOOPS, MODEL_WRAPPERS, TRANSFORMS

from mmcls.structures import ClsDataSample
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

pytestmark = pytest.mark.usefixtures("stand_in_weights")
NETS = ("mbv1", "mbv2", "r50")
CONFIGS = sorted(path.stem for path in (Path(__file__).resolve().parents[1] / "configs" / "pss").glob("*.py"))
# Those whose latency table comes from the user's GPU or from the authors; tests/test_config_runs.py builds them.
WITH_TABLES = [
    name
    for name in CONFIGS
    if not name.endswith(("_gpu", "_paper")) and name not in {f"pss_{net}_multi" for net in NETS}
]
# Building the samplers of spaces of ops, and of free inner widths, takes about ten seconds.
LONG_TO_SET_UP = ["pss_shufflenetv2_flops", *(n for n in CONFIGS if n.endswith("_pretrained") and "resnet18" not in n)]


def images_of(loader):
    """The dataset of images in a data loader's config, inside of a wrapper where there is one."""
    return loader.dataset.get("dataset", loader.dataset)


def test_there_are_configs():
    assert {"pss_mbv2_flops", "pss_mbv2_flops_digits"} <= set(CONFIGS)


@pytest.fixture(params=CONFIGS)
def config(request, load_config):
    return load_config(request.param)


@pytest.fixture(scope="module")
def algorithms(build_algorithm):
    built = {}

    def get(name):
        if name not in built:
            built[name] = build_algorithm(name)
        return built[name]

    return get


class TestEveryConfig:
    @pytest.mark.parametrize(
        "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG_TO_SET_UP else n for n in WITH_TABLES]
    )
    def test_model_and_targets(self, algorithms, name):
        algorithm = algorithms(name)
        assert isinstance(algorithm, PSS)
        for constraint in algorithm.constraints:
            sampler = build_conditional_sampler(algorithm.costs[constraint.metric], constraint)
            assert sampler.reachable_targets == constraint.targets, "a target that no subnet reaches"
            low, high = sampler.resource_range
            # the targets cover the space: no subnet is further than a step from them
            assert constraint.first - low <= constraint.step and high - constraint.last <= constraint.step

    @pytest.mark.parametrize("name", WITH_TABLES)
    def test_optimizer(self, algorithms, load_config, name):
        optim_wrapper = build_optim_wrapper(algorithms(name), load_config(name).optim_wrapper)
        decay = 0.05 if "convnext" in name else 1e-4
        assert {group["weight_decay"] for group in optim_wrapper.optimizer.param_groups} == {0.0, decay}

    def test_hooks_and_wrapper(self, config):
        hook = HOOKS.build(config.default_hooks.subnet_sampler)
        assert isinstance(hook, PrioritizedPoolSamplerHook)
        if config.default_hooks.subnet_sampler.get("score") is None:  # the paper's
            assert hook.p_explore == (1.0, 0.01) and hook.temperature == (1.0, 0.01) and hook.score_momentum == 0.9
        for default in config.default_hooks.values():
            HOOKS.build(default)
        assert MODEL_WRAPPERS.get(config.model_wrapper_cfg.type) is PSSDistributedDataParallel

    def test_loops(self, config):
        assert LOOPS.get(config.val_cfg.type) is PoolValLoop and LOOPS.get(config.test_cfg.type) is PoolTestLoop
        assert config.train_cfg.by_epoch and config.train_cfg.max_epochs % config.train_cfg.val_interval == 0
        schedulers = config.param_scheduler if isinstance(config.param_scheduler, list) else [config.param_scheduler]
        assert schedulers[-1].end == config.train_cfg.max_epochs

    def test_pipelines_build_and_collate_is_default(self, config):
        for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
            loader = config[name]
            for transform in images_of(loader).pipeline:
                TRANSFORMS.build(transform)
            assert registry.DATASETS.get(images_of(loader).type) is not None
            assert FUNCTIONS.get(loader.collate_fn.type) is not None
            if "worker_init_fn" in loader:
                assert FUNCTIONS.get(loader.worker_init_fn.type) is not None
            assert loader.sampler.shuffle is (name == "train_dataloader")
        assert config.train_dataloader.drop_last

    def test_images_have_the_largest_resolution(self, config):
        """The batch comes at the largest resolution of the space."""
        largest = max(config.model.architecture.resolutions or [config.model.get("input_size")])
        for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
            dataset = images_of(loader)
            shape = (28 + 2 * dataset.padding,) * 2 if dataset.type == "FashionMNIST" else (100, 80)
            image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
            results = dict(img=image, img_shape=shape, ori_shape=shape, gt_label=0)
            for transform in dataset.pipeline:
                if transform.type != "LoadImageFromFile":
                    results = TRANSFORMS.build(transform)(results)
            assert results["inputs"].shape == (3, largest, largest)
            assert isinstance(results["data_samples"], ClsDataSample)

    def test_reproducible_and_safe_defaults(self, config):
        assert config.default_scope == "mmrazor" and config.custom_imports["imports"] == ["pss_razor.plugin"]
        assert config.default_hooks.checkpoint.max_keep_ckpts >= 2
        assert config.randomness.seed == 0 and not config.resume and config.load_from is None
        assert not config.env_cfg.cudnn_benchmark or "resolutions" not in config.model.architecture


class TestImageNet:
    @pytest.fixture
    def config(self, load_config):
        return load_config("pss_mbv2_flops")

    def test_targets(self, imagenet_mbv2):
        (constraint,) = imagenet_mbv2.constraints
        assert constraint.metric == "flops"
        sampler = build_conditional_sampler(imagenet_mbv2.costs["flops"], constraint)
        assert sampler.reachable_targets == tuple(range(70, 301, 10)) and len(sampler.reachable_targets) == 24
        assert sampler.resource_range == pytest.approx((69.150208, 300.836992))

    def test_recipe(self, config):
        assert config.train_dataloader.batch_size == 128 and config.auto_scale_lr == dict(
            enable=False, base_batch_size=1024
        )
        assert config.train_cfg.max_epochs == 250
        assert config.optim_wrapper.optimizer == dict(
            type="SGD", lr=0.3, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True
        )
        assert config.model.architecture.head.num_classes == 1000
        assert config.model.architecture.head.in_channels == 1280
        assert config.model.architecture.backbone.width_range == (0.75, 1.0)
        assert list(config.model.architecture.resolutions) == list(range(128, 225, 8))
        assert config.default_hooks.subnet_sampler == dict(
            type="PrioritizedPoolSamplerHook",
            pool_size=50,
            score_momentum=0.9,
            p_explore=(1.0, 0.01),
            temperature=(1.0, 0.01),
        )
        assert config.test_cfg == dict(type="PoolTestLoop", top_k=5, calibration_batches=9)
        assert config.val_cfg.calibration_batches == 9

    def test_learning_rate_is_a_cosine_by_iteration_without_warm_up(self, config, imagenet_mbv2):
        """1251 iterations an epoch; the schedule stepped as a runner does, at some iterations of 10 an epoch here."""
        optim_wrapper = build_optim_wrapper(imagenet_mbv2, config.optim_wrapper)
        assert not isinstance(config.param_scheduler, list), "one schedule, no warm-up"
        scheduler_config = dict(config.param_scheduler)
        assert scheduler_config.pop("convert_to_iter_based") and scheduler_config["by_epoch"]
        cls = PARAM_SCHEDULERS.get(scheduler_config.pop("type"))
        scheduler = cls.build_iter_from_epoch(optimizer=optim_wrapper, epoch_length=10, **scheduler_config)
        rates = []
        for _ in range(2500):
            rates.append(optim_wrapper.get_lr()["lr"][0])
            scheduler.step()
        expected = 0.15 * (1 + np.cos(np.pi * np.arange(2500) / 2500))
        np.testing.assert_allclose(rates, expected, atol=1e-9)
        assert len(set(rates)) == 2500

    def test_augmentation(self, config):
        train = {t.type.removeprefix("mmcls."): t for t in config.train_dataloader.dataset.pipeline}
        assert list(train) == [
            "LoadImageFromFile", "RandomResizedCrop",
            "LookupColorJitter", "ClippedLighting", "RandomFlip", "PackPlanes",
        ]  # fmt: skip
        crop, jitter = train["RandomResizedCrop"], train["LookupColorJitter"]
        assert crop.scale == 224 and crop.crop_ratio_range == (0.25, 1.0)
        assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.get("hue", 0)) == (0.4, 0.4, 0.4, 0)
        assert train["ClippedLighting"].alphastd == 0.1 and train["RandomFlip"].prob == 0.5
        test = [dict(t) for t in config.val_dataloader.dataset.pipeline]
        assert dict(type="mmcls.ResizeEdge", scale=256, edge="short") in test
        assert dict(type="mmcls.CenterCrop", crop_size=224) in test
        assert config.test_dataloader == config.val_dataloader

    def test_lighting_is_in_the_images_channel_order(self, config):
        """AlexNet's principal components (R, G, B); cv2 loads B, G, R, as mmcls' own configs have them."""
        rgb = [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
        lighting = next(t for t in config.train_dataloader.dataset.pipeline if "Lighting" in t.type)
        bgr = not lighting.get("to_rgb", False)
        assert [list(row) for row in lighting.eigvec] == (rgb[::-1] if bgr else rgb)

    def test_lighting_does_not_wrap_around(self, config):
        lighting = TRANSFORMS.build(next(t for t in config.train_dataloader.dataset.pipeline if "Lighting" in t.type))
        np.random.seed(0)
        for value in (1, 254):
            for _ in range(20):
                image = lighting(dict(img=np.full((2, 2, 3), value, dtype=np.uint8)))["img"].astype(int)
                assert (abs(image - value) < 60).all()

    def test_normalisation(self, config):
        """ImageNet's mean and deviation in R, G, B; images are loaded as B, G, R."""
        preprocessor = config.model.data_preprocessor
        assert preprocessor.to_rgb
        assert preprocessor.mean == [123.675, 116.28, 103.53] and preprocessor.std == [58.395, 57.12, 57.375]


@pytest.mark.parametrize(
    "name", [n for n in CONFIGS if n.endswith(("_digits", "_cifar10", "_cifar100", "_fashion", "_held_out"))]
)
def test_subnets_are_chosen_on_images_of_their_own(load_config, name):
    """No image is trained on, chosen by and measured on at once; the paper's protocol chooses on the test images."""
    config = load_config(name)
    selection, train = config.test_cfg.selection_dataloader.dataset, config.train_dataloader.dataset
    assert config.val_dataloader.dataset == selection  # what is seen during training is not the test set either
    if "held_out" in name:
        assert (selection.num_splits, selection.seed) == (train.num_splits, train.seed) == (128, 0)
        assert selection.test_mode and not train.test_mode
        assert selection.dataset.data_prefix == train.dataset.data_prefix == "train"
        assert config.test_dataloader.dataset.data_prefix == "val"
    elif "fashion" in name:
        scoring = config.scoring_dataloader.dataset
        assert [part.span for part in (train, scoring, selection)] == [(0, 50_000), (50_000, 54_000), (54_000, 58_000)]
        assert not any(part.test_mode for part in (train, scoring, selection))
        assert config.test_dataloader.dataset.test_mode and "span" not in config.test_dataloader.dataset
        assert scoring.pipeline == selection.pipeline
    else:
        size = 1437 if "digits" in name else 50_000
        assert train.indices - selection.indices == size  # the first and the last ones
        part = "split" if "digits" in name else "test_mode"
        assert train[part] == selection[part] != config.test_dataloader.dataset[part]
        assert "indices" not in config.test_dataloader.dataset
    assert images_of(config.val_dataloader).pipeline == config.test_dataloader.dataset.pipeline
    assert "selection_dataloader" not in load_config("pss_mbv2_flops").test_cfg


def test_held_out_images(tmp_path):
    """The folds of a folder of images: none is in both, all are in one."""
    for number in range(300):
        folder = tmp_path / "train" / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.JPEG").touch()
    inner = dict(type="ImageFolder", data_root=str(tmp_path), data_prefix="train", pipeline=[])
    train, selection = (
        registry.DATASETS.build(
            dict(type="mmcls.KFoldDataset", num_splits=128, seed=0, test_mode=test_mode, dataset=inner)
        )
        for test_mode in (False, True)
    )
    names = [{part.get_data_info(i)["img_path"] for i in range(len(part))} for part in (train, selection)]
    assert len(names[1]) == 2 and len(names[0]) == 298 and not names[0] & names[1]
    assert train.metainfo["classes"] == ("class0", "class1", "class2")


# Metric -> first, last, step of the paper's targets; latencies in microseconds.
PAPER_TARGETS = {
    "mbv1": {"flops": (110, 570, 10), "latency_gpu": (70, 240, 10), "latency_cpu": (10000, 31000, 1000)},
    "mbv2": {"flops": (70, 300, 10), "latency_gpu": (100, 270, 10), "latency_cpu": (12000, 28000, 1000)},
}
METRICS_OF = {
    "flops": ["flops"],
    "gpu_paper": ["latency_gpu"],
    "cpu_paper": ["latency_cpu"],
    "multi_paper": ["flops", "latency_gpu", "latency_cpu"],
}


@pytest.mark.parametrize("net", PAPER_TARGETS)
@pytest.mark.parametrize("kind", METRICS_OF)
def test_targets_of_the_paper(load_config, net, kind):
    model = load_config(f"pss_{net}_{kind}").model
    found = {c.metric: (c.first, c.last, c.step) for c in model.constraints}
    assert found == {metric: PAPER_TARGETS[net][metric] for metric in METRICS_OF[kind]}
    assert model.architecture.backbone.type == {"mbv1": "SlimmableMobileNetV1", "mbv2": "SlimmableMobileNetV2"}[net]
    for metric in found.keys() - {"flops"}:
        device = metric.removeprefix("latency_")
        table = f"data/latency_tables/pssnet_{net}_{device}.json"
        expected = dict(type="LatencyEstimator", table=table, device={"gpu": "cuda", "cpu": "cpu"}[device])
        assert model.estimators[metric] == expected


def test_digits_are_normalised_by_their_own_statistics(load_config):
    from pss_razor.datasets import Digits

    config = load_config("pss_mbv2_flops_digits")
    dataset = Digits(split="train", pipeline=[])
    pixels = np.stack([dataset.get_data_info(i)["img"] for i in range(len(dataset))]).astype(float)
    assert pixels.mean() == pytest.approx(config.model.data_preprocessor.mean[0], abs=2)
    assert pixels.std() == pytest.approx(config.model.data_preprocessor.std[0], abs=2)


def test_fashion_mnist_is_normalised_by_its_own_statistics(load_config):
    from pss_razor.datasets import FashionMNIST

    folder = Path(__file__).resolve().parents[2] / "shared" / "datasets" / "fashion_mnist"
    if not folder.is_dir():
        pytest.skip(f"no files of Fashion-MNIST at {folder}")
    preprocessor = load_config("pss_mbv2_flops_fashion").model.data_preprocessor
    dataset = FashionMNIST(str(folder), test_mode=False, span=(0, 10_000), pipeline=[])
    pixels = np.stack([dataset.get_data_info(i)["img"] for i in range(len(dataset))]).astype(np.float32)
    assert pixels.mean() == pytest.approx(preprocessor.mean[0], abs=1)
    assert pixels.std() == pytest.approx(preprocessor.std[0], abs=1)


def test_an_evidence_run_is_1200_steps(load_config):
    config = load_config("pss_mbv2_flops_fashion")
    loader = config.train_dataloader
    assert loader.sampler.num_samples % loader.batch_size == 0
    assert config.train_cfg.max_epochs * loader.sampler.num_samples // loader.batch_size == 1200


class TestPretrained:
    """Recipes that start from weights of torchvision's; the loader finds stand-ins for the downloads."""

    NAMES = tuple(name for name in CONFIGS if name.endswith("_pretrained"))

    def test_they_are_all_there(self):
        networks = ("resnet18", "resnet50", "mobilenetv3_large", "efficientnet_b0", "convnext_tiny")
        assert set(self.NAMES) == {f"pss_{network}_pretrained" for network in networks}

    @pytest.mark.parametrize("name", NAMES)
    def test_the_largest_subnet_is_the_trained_network(self, algorithms, load_config, name):
        settings = load_config(name).model.architecture.network
        weights = torchvision.models.get_weight(
            f"{torchvision.models.get_model_weights(settings.type.split('.')[1]).__name__}.{settings.weights}"
        )
        network = torchvision.models.get_model(settings.type.split(".")[1])
        network.load_state_dict(weights.get_state_dict())
        algorithm = algorithms(name).eval()
        images = torch.randn(2, 3, 224, 224)
        with torch.no_grad():
            expected, logits = network.eval()(images), algorithm(images)
        assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()
        # What the weights were trained on is what the data preprocessor makes.
        transforms = weights.transforms()
        assert np.allclose(algorithm.data_preprocessor.mean.flatten(), np.array(transforms.mean) * 255)
        assert np.allclose(algorithm.data_preprocessor.std.flatten(), np.array(transforms.std) * 255, rtol=1e-4)

    @pytest.mark.parametrize("name", NAMES)
    def test_learning_rate_warms_up_for_an_epoch(self, algorithms, load_config, name):
        config = load_config(name)
        optim_wrapper = build_optim_wrapper(algorithms(name), config.optim_wrapper)
        schedulers = []
        for own in config.param_scheduler:
            own = dict(own)
            assert own.pop("convert_to_iter_based")
            build = PARAM_SCHEDULERS.get(own.pop("type")).build_iter_from_epoch
            schedulers.append(build(optimizer=optim_wrapper, epoch_length=10, **own))
        rates = []
        for _ in range(300):
            rates.append(optim_wrapper.get_lr()["lr"][0])
            for scheduler in schedulers:
                scheduler.step()
        highest = 2e-4 if "convnext" in name else 0.06
        assert rates[0] == pytest.approx(0.1 * highest) and np.argmax(rates) in (9, 10)
        assert max(rates) == pytest.approx(highest)
        cosine = highest / 2 * (1 + np.cos(np.pi * np.arange(290) / 290))
        np.testing.assert_allclose(rates[10:], cosine, rtol=1e-6, atol=1e-9)

    def test_without_a_network_the_error_says_where_the_file_goes(self, load_config, monkeypatch, tmp_path):
        def unreachable(url, *arguments, **options):
            raise URLError("Name or service not known")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
        with pytest.raises(ConfigError, match=f"weights of torchvision.resnet18.*{tmp_path}/hub/checkpoints.*=None"):
            registry.MODELS.build(load_config("pss_resnet18_pretrained").model)
