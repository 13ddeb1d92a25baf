"""From a torchvision network and data loaders to a bundle of subnets, in plain PyTorch, without a config.

``python examples/plain_pytorch.py [--images FOLDER] [--epochs N] [--out FOLDER]``: on Fashion-MNIST where FOLDER has
``FashionMNIST/raw/``, as torchvision leaves it, else on scikit-learn's handwritten digits. What is there is continued.
"""

import argparse
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision import transforms

import pss_razor
from pss_razor.deploy import AdaptiveModel


def load(folder: str | None, train: bool) -> Dataset:
    """Images (3, 32, 32), normalised, with labels."""
    transform = transforms.Compose(
        [transforms.Grayscale(3), transforms.Resize(32), transforms.ToTensor(), transforms.Normalize(0.3, 0.35)]
    )
    if folder is not None:
        return torchvision.datasets.FashionMNIST(folder, train, transform)
    from pss_razor.datasets import Digits

    digits = Digits("train" if train else "test")
    return [(transform(Image.fromarray(digit["img"])), digit["gt_label"]) for digit in digits]


def run(known: Dataset, unseen: Dataset, epochs: int, out: Path) -> None:
    """Convert, train, measure, export, switch."""
    train_images, val_images = random_split(known, [0.9, 0.1], torch.Generator().manual_seed(0))
    train_loader = DataLoader(train_images, batch_size=64, shuffle=True, drop_last=True)
    val_loader, test_loader = DataLoader(val_images, batch_size=250), DataLoader(unseen, batch_size=250)

    model = torchvision.models.resnet18(num_classes=10)  # or a trained one
    images, labels = next(iter(test_loader))
    supernet = pss_razor.convert(model, images[:2], resolutions=[24, 32], sort="l1")
    print(supernet.summary())
    trained = pss_razor.fit(
        supernet, train_loader, val_loader=val_loader, epochs=epochs, num_targets=5, work_dir=out, resume=True
    )
    measured = pss_razor.evaluate(trained, test_loader)
    print(measured)
    pss_razor.export(measured, out / "export", formats=("torch", "onnx", "bundle"))

    network = AdaptiveModel.load(out / "export" / "bundle.safetensors")
    for mflops in (15, 30):
        subnet = network.select(flops=mflops)
        accuracy = (network(images).argmax(1) == labels).float().mean()
        print(f"within {mflops} MFLOPs: {subnet.name}, {accuracy:.1%} of {len(images)} images")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", help="folder with FashionMNIST/raw/")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/plain_pytorch"))
    args = parser.parse_args()
    run(load(args.images, train=True), load(args.images, train=False), args.epochs, args.out)
