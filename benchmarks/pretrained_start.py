"""What starting from a trained network is worth: ``python benchmarks/pretrained_start.py --images FOLDER --out DIR``.

Trains torchvision's ResNet-18 (a stem for small images) on Fashion-MNIST, converts it, and trains PSS from it with a
fifth of the steps, channels sorted and not, and with the network as the teacher; beside PSS from scratch with all steps
and with a fifth. FOLDER has the four files of Fashion-MNIST. What is there already is not done again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

EPOCHS = 5
BATCH = 64
CONFIG = """_base_ = "pss_razor::pss/pss_mbv2_flops.py"

from pss_razor.config import use_image_folder

use_image_folder(
    _base_, {data!r}, num_classes=10, image_size=32, test="test", num_targets=8, epochs={epochs}
)
resize = dict(type="mmcls.Resize", scale=32)
train = [dict(type="LoadImageFromFile"), resize, dict(type="mmcls.RandomCrop", crop_size=32, padding=3),
         dict(type="RandomFlip", prob=0.5, direction="horizontal"), dict(type="mmcls.PackClsInputs")]
test = [dict(type="LoadImageFromFile"), resize, dict(type="mmcls.PackClsInputs")]
train_dataloader = dict(batch_size={batch}, num_workers=0, dataset=dict(pipeline=train))
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=test))
test_dataloader = dict(num_workers=0, dataset=dict(pipeline=test))
test_cfg = dict(top_k=10, selection_dataloader=val_dataloader | dict(dataset=dict(
    type="ImageFolder", data_root={data!r}, data_prefix="val", pipeline=test)))
model = dict(
    teacher={teacher!r},
    data_preprocessor=dict(mean=[72.9] * 3, std=[90.0] * 3, to_rgb=False),
    architecture=dict(
        _delete_=True, type="ConvertedImageClassifier", sort={sort!r}, resolutions=[20, 24, 28, 32],
        network=dict(type="pretrained_start.small_resnet18", checkpoint={checkpoint!r}),
    ),
)
optim_wrapper = dict(optimizer=dict(lr={lr}))
train_cfg = dict(val_interval=100)
randomness = dict(seed={seed})
default_hooks = dict(logger=dict(interval=50), subnet_sampler=dict(pool_size=20), checkpoint=dict(max_keep_ckpts=2))
"""
# Name -> epochs, whether it starts from the trained network, sorting, learning rate, teacher.
RUNS: dict[str, tuple[int, bool, str | None, float, str]] = {
    "scratch, all steps": (EPOCHS, False, None, 0.1, "largest"),
    "scratch, a fifth": (EPOCHS // 5, False, None, 0.1, "largest"),
    "pretrained, a fifth": (EPOCHS // 5, True, None, 0.02, "largest"),
    "pretrained and sorted, a fifth": (EPOCHS // 5, True, "l1", 0.02, "largest"),
    "pretrained and sorted, taught by the original, a fifth": (EPOCHS // 5, True, "l1", 0.02, "original"),
}


def small_resnet18(checkpoint: str | None = None) -> nn.Module:
    """torchvision's ResNet-18 with a stem of 3 x 3, for ten classes; with the weights of a checkpoint."""
    network = torchvision.models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    if checkpoint is not None:
        network.load_state_dict(torch.load(checkpoint, weights_only=True))
    return network


def read(images: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,)."""
    arrays = []
    for kind, offset in (("images-idx3", 16), ("labels-idx1", 8)):
        data = gzip.decompress((images / f"{part}-{kind}-ubyte.gz").read_bytes())
        arrays.append(np.frombuffer(data, np.uint8, offset=offset))
    return arrays[0].reshape(-1, 28, 28), arrays[1]


def write_folders(images: Path, out: Path) -> None:
    """12,000 images to train, 2,000 to choose by, 3,000 to test."""
    import cv2

    pixels, labels = read(images, "train")
    test_pixels, test_labels = read(images, "t10k")
    splits = {
        "train": (pixels[:12_000], labels[:12_000]),
        "val": (pixels[-2_000:], labels[-2_000:]),
        "test": (test_pixels[:3_000], test_labels[:3_000]),
    }
    for split, (own, classes) in splits.items():
        for number, (image, label) in enumerate(zip(own, classes, strict=True)):
            folder = out / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number:05}.png"), image)


def train_plain(images: Path, path: Path, seed: int) -> None:
    """Train the network itself."""
    pixels, labels = (torch.from_numpy(part[:12_000].copy()) for part in read(images, "train"))
    x = F.interpolate((pixels[:, None].float() - 72.9) / 90.0, 32, mode="bilinear").expand(-1, 3, -1, -1)
    torch.manual_seed(seed)
    network = small_resnet18().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x))[: len(x) // BATCH * BATCH].split(BATCH):
            batch = F.pad(x[rows], (3, 3, 3, 3))
            top, left = torch.randint(7, (2,)).tolist()
            batch = batch[:, :, top : top + 32, left : left + 32]
            batch = batch.flip(-1) if torch.rand(()) < 0.5 else batch
            loss = F.cross_entropy(network(batch.contiguous(memory_format=torch.channels_last)), labels[rows].long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    torch.save(network.state_dict(), path)


def run(name: str, folder: Path, checkpoint: Path, data: Path, seed: int) -> dict[str, Any]:
    """Train and test one run; its results."""
    epochs, pretrained, sort, lr, teacher = RUNS[name]
    work_dir = folder / name.replace(", ", "_").replace(" ", "_")
    results = work_dir / "pool_results.json"
    if not results.exists():
        work_dir.mkdir(parents=True, exist_ok=True)
        config = work_dir / "config.py"
        settings = dict(epochs=epochs, sort=sort, lr=lr, teacher=teacher, seed=seed, data=str(data), batch=BATCH)
        config.write_text(CONFIG.format(checkpoint=str(checkpoint) if pretrained else None, **settings))
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        commands = Path(sys.executable).parent
        for command in (
            [commands / "pss-train", config, "--resume", "auto"],
            [commands / "pss-test", config, work_dir / f"epoch_{epochs}.pth"],
        ):
            arguments = [*map(str, command), "--work-dir", str(work_dir)]
            done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(results.read_text())


def best(results: dict[str, Any]) -> dict[str, float]:
    """Pool -> accuracy of the subnet that was chosen on other images."""
    found: dict[str, tuple[float, float]] = {}
    for own in results["subnets"]:
        name = own["name"] if own["target"] is None else f"{own['target']:g}"
        chosen = own["selection_metrics"]["accuracy/top1"]
        if name not in found or chosen > found[name][0]:
            found[name] = (chosen, own["metrics"]["accuracy/top1"])
    return {name: accuracy for name, (_, accuracy) in found.items()}


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = (args.out / "data").resolve()
    if not (data / "test").exists():
        write_folders(args.images, data)
    accuracies: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    for seed in args.seeds:
        folder = (args.out / f"seed{seed}").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "plain.pth"
        if not checkpoint.exists():
            train_plain(args.images, checkpoint, seed)
        for name in RUNS:
            accuracies[name].append(best(run(name, folder, checkpoint, data, seed)))
            print(f"seed {seed}, {name}: {accuracies[name][-1]}", flush=True)
    pools = list(accuracies["scratch, all steps"][0])
    print("| MFLOPs | " + " | ".join(RUNS) + " |\n|" + " --- |" * (1 + len(RUNS)))
    for pool in pools:
        cells = []
        for name in RUNS:
            values = [own[pool] for own in accuracies[name] if pool in own]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.1f}{spread}" if values else "")
        print(f"| {pool} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
