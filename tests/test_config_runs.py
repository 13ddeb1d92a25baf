"""Every shipped config trains for two iterations on fake data."""

from pathlib import Path

import pytest
import torch

from pss_razor.core import ConfigError
from pss_razor.engine.launch import build_runner, load_config
from pss_razor.estimators import LatencyTable
from pss_razor.estimators.latency.measure import find_geometries
from pss_razor.models import build_supernet
from pss_razor.registry import DATASETS

from mmcls.structures import ClsDataSample
from mmengine.registry import init_default_scope

pytestmark = pytest.mark.usefixtures("stand_in_weights")
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PATHS = sorted(str(path.relative_to(CONFIGS)) for path in (*CONFIGS.glob("pss/*.py"), *CONFIGS.glob("baselines/*.py")))
TWELVE = {f"pss/pss_{net}_{kind}.py" for net in ("mbv1", "mbv2", "r50") for kind in ("flops", "cpu", "gpu", "multi")}


@DATASETS.register_module()
class FakeImages(torch.utils.data.Dataset):
    """Random 8-bit images, as the pipelines leave them."""

    def __init__(self, size: int, classes: int, length: int) -> None:
        self.size, self.classes, self.length = size, classes, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, self.size, self.size), generator=generator, dtype=torch.uint8)
        sample = ClsDataSample().set_gt_label(int(torch.randint(self.classes, (1,), generator=generator)))
        return dict(inputs=image, data_samples=sample)


@pytest.fixture(scope="module")
def made_up_table(tmp_path_factory):
    """A latency table with an entry for every block of a config's space: what a user measures on a device."""
    made = {}

    def make(config, device):
        architecture = config.model.architecture
        key = (architecture.backbone.type, device)
        if key not in made:
            _, _, graph = build_supernet(config)
            latencies_us = {
                g: 1.0 + 1e-5 * g.in_size**2 * g.cin * g.cout / (g.stride or 1) ** 2 for g in find_geometries(graph)
            }
            made[key] = tmp_path_factory.mktemp("tables") / f"{key[0]}_{device}.json"
            LatencyTable(latencies_us, device, {"made_up": True}).save(made[key])
        return str(made[key])

    return make


def test_the_twelve_recipes_are_there():
    assert set(PATHS) >= TWELVE


@pytest.mark.slow
@pytest.mark.parametrize("name", PATHS)
def test_two_iterations(name, tmp_path, made_up_table):
    config = load_config(str(CONFIGS / name), None, "none", str(tmp_path))
    for estimator in config.model.estimators.values():
        # What is not shipped a user measures or imports.
        if "table" in estimator and not Path(estimator.table).exists():
            assert estimator.device == "cuda" or "pssnet" in estimator.table
            estimator.table = made_up_table(config, estimator.device)
    if name.endswith("_paper.py"):
        for constraint in config.model.constraints:
            if constraint.metric != "flops":  # the made-up table has other latencies than the authors' machines
                for key in ("first", "last", "step"):
                    del constraint[key]
                constraint.num_targets = 17
    config.experiment_name = f"config_{PATHS.index(name)}"
    architecture = config.model.architecture
    classes = (architecture if "num_classes" in architecture else architecture.head).num_classes
    size = max(config.model.architecture.resolutions or [config.model.get("input_size")])
    # Maps of one pixel, as small images end in, need a batch for BN to make sense.
    batch_size = 16 if size <= 64 else 2
    config.train_dataloader = dict(
        batch_size=batch_size,
        num_workers=0,
        dataset=dict(type="FakeImages", size=size, classes=classes, length=2 * batch_size),
        sampler=dict(type="DefaultSampler", shuffle=True),
        collate_fn=dict(type="default_collate"),
        drop_last=True,
    )
    config.train_cfg.max_epochs = 1
    sampler = config.default_hooks.subnet_sampler
    if sampler.get("rescoring"):
        sampler.rescoring = [dict(at=0.0, images=batch_size, fresh=2, keep=1)]
        sampler.scoring_dataloader = config.train_dataloader
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.vis_backends = config.visualizer.vis_backends = [dict(type="LocalVisBackend")]
    runner = build_runner(config)
    before = {key: value.clone() for key, value in runner.model.architecture.state_dict().items()}
    runner.train()
    assert runner.iter == 2
    after = runner.model.architecture.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert all(torch.isfinite(value).all() for value in after.values())
    assert (tmp_path / "epoch_1.pth").exists()


@pytest.mark.parametrize(
    "name",
    ["pss/pss_mbv2_gpu.py", "pss/pss_r50_multi.py", "pss/pss_mbv2_cpu_paper.py", "pss/pss_mbv1_multi_paper.py"],
)
def test_without_a_table_the_error_says_how_to_get_one(name, tmp_path):
    config = load_config(str(CONFIGS / name), None, "none", str(tmp_path))
    init_default_scope("mmrazor")
    with pytest.raises(ConfigError, match=r"does not exist; measure one .*pss-latency.*or import the authors'"):
        build_runner(config)


@pytest.mark.parametrize("net", ["mobilenet_v1", "mobilenet_v2", "resnet50", "mobilenet_v2_32px", "mobilenet_v2_64px"])
def test_shipped_tables_say_where_they_come_from(net):
    table = LatencyTable.load(CONFIGS / "_base_" / "latency_tables" / f"{net}_cpu.json")
    wanted = {"config", "device_name", "backend", "threads", "batch", "dtype", "torch", "date", "rounds"}
    assert wanted <= table.provenance.keys()
    assert table.device == "cpu" and table.provenance["threads"] == 1
    if table.interpolate:
        assert table.provenance["interpolation"]["checked_blocks"] >= 48
