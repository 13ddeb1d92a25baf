"""The code of docs/your_data.md, as it is printed there."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from pss_razor.engine.launch import build_runner, load_config
from pss_razor.registry import DATASETS

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "your_data.md").read_text(), re.DOTALL
)
FOLDER, OWN_SETTINGS, LARGE, FROM_CSV, FROM_COCO, LISTED, OWN_DATASET = BLOCKS
CLASSES = ("daisy", "rose", "tulip")


@pytest.fixture
def flowers(tmp_path, monkeypatch):
    """Nine images in folders and in one folder, with the lists that a user may have of them."""
    monkeypatch.chdir(tmp_path)
    root, generator = Path("data/flowers"), np.random.default_rng(0)
    rows = []
    for split in ("train", "val"):
        for number in range(9):
            name = CLASSES[number % 3]
            image = generator.integers(0, 255, (100, 110, 3), dtype=np.uint8)
            for path in (root / split / name / f"{number}.png", root / "images" / f"{split}_{number}.png"):
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image)
            if split == "train":
                rows.append(dict(path=path.name, **{"class": name}))
            else:
                with (root / "val.txt").open("a") as file:
                    file.write(f"{path.name} {number % 3}\n")
    with (root / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "class"])
        writer.writeheader()
        writer.writerows(rows)
    ids = {name: 10 + index for index, name in enumerate(CLASSES)}
    document = {
        "categories": [dict(id=value, name=name) for name, value in ids.items()],
        "images": [dict(id=100 + index, file_name=row["path"]) for index, row in enumerate(rows)],
        "annotations": [dict(image_id=100 + i, category_id=ids[row["class"]]) for i, row in enumerate(rows)],
    }
    (root / "train.json").write_text(json.dumps(document))
    return tmp_path


def read(folder, *blocks):
    (folder / "flowers.py").write_text("\n".join(blocks))
    return load_config("flowers.py", None, "none", str(folder / "work"))


def test_folder(flowers):
    assert len(FOLDER.strip().splitlines()) <= 8
    config = read(flowers, FOLDER, OWN_SETTINGS)
    assert config.default_hooks.subnet_sampler.pool_size == 20 and config.train_dataloader.batch_size == 32
    assert DATASETS.build(config.train_dataloader.dataset).metainfo["classes"] == CLASSES


def test_large_photographs(flowers):
    """The same crops, of the same random numbers; these files are not large."""
    loaded = []
    for blocks in ([FOLDER], [FOLDER, LARGE]):
        config = read(flowers, *blocks)
        dataset = DATASETS.build(config.train_dataloader.dataset)
        np.random.seed(0)
        loaded.append([dataset[number]["inputs"] for number in range(9)])
    assert config.train_dataloader.dataset.pipeline[0].type == "LoadRandomResizedCrop"
    assert len(config.train_dataloader.dataset.pipeline) == 5
    assert all(one.equal(other) and one.shape == (3, 96, 96) for one, other in zip(*loaded, strict=True))


@pytest.mark.parametrize("program", [FROM_CSV, FROM_COCO], ids=["csv", "coco"])
def test_list(flowers, program):
    exec(program, {})
    config = read(flowers, FOLDER, LISTED)
    datasets = [DATASETS.build(c.dataset) for c in (config.train_dataloader, config.val_dataloader)]
    for dataset, split in zip(datasets, ("train", "val"), strict=True):
        assert len(dataset) == 9 and tuple(dataset.metainfo["classes"]) == CLASSES
        for number in range(9):
            info = dataset.get_data_info(number)
            assert Path(info["img_path"]).name == f"{split}_{number}.png" and info["gt_label"] == number % 3
        assert dataset[0]["inputs"].shape == (3, 96, 96)


@pytest.mark.slow
def test_list_trains(flowers):
    exec(FROM_CSV, {})
    config = read(flowers, FOLDER, LISTED)
    config.merge_from_dict(
        {
            "train_dataloader.batch_size": 9,
            "train_dataloader.num_workers": 0,
            "val_dataloader.num_workers": 0,
            "test_dataloader.num_workers": 0,
            "train_cfg.max_epochs": 1,
            "experiment_name": "your_data",
        }
    )
    runner = build_runner(config)
    runner.train()
    assert 0 <= runner.test()["largest/accuracy/top1"] <= 100


def test_dataset_of_ones_own(flowers):
    listed = [(f"data/flowers/images/train_{number}.png", number % 3) for number in range(9)]
    exec(OWN_DATASET, {"find_images": lambda root, test_mode: listed, "__name__": "herbarium"})
    try:
        dataset = DATASETS.build(
            dict(type="Herbarium", ann_file="", data_root="data", pipeline=[dict(type="LoadImageFromFile")])
        )
        assert len(dataset) == 9 and dataset[4]["img"].shape == (100, 110, 3) and dataset[4]["gt_label"] == 1
    finally:
        DATASETS._module_dict.pop("Herbarium")
