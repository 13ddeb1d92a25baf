"""Run by test_fit.py, once in each of two processes: train and measure in plain PyTorch."""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from small_network import part, small_supernet
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import pss_razor
from pss_razor.engine.launch import close_process_group


class Recorded(Dataset):
    """Which images were asked for while training."""

    def __init__(self):
        self.part = part(0, 96)
        self.asked = []

    def __len__(self):
        return len(self.part)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.part[index]


def run(out: Path) -> dict:
    place = dict(num_replicas=int(os.environ["WORLD_SIZE"]), rank=int(os.environ["RANK"]))
    images = Recorded()
    sampler = DistributedSampler(images, **place)
    loader = DataLoader(images, 8, sampler=sampler, drop_last=True)
    trained = pss_razor.fit(small_supernet(), loader, epochs=1, num_targets=3, pool_size=2, work_dir=out / "work")
    # The first two are looked at by the checks, before.
    asked = images.asked[-48:]
    test = part(1000, 1060)
    loader = DataLoader(test, 16, sampler=DistributedSampler(test, shuffle=False, **place))
    measured = pss_razor.evaluate(trained, loader, top_k=1, calibration_batches=2)
    return {
        "images": asked,
        "parameters": [p.detach().clone() for p in trained.supernet.parameters()],
        "accuracies": [own.metrics["accuracy/top1"] for own in measured],
    }


def main() -> None:
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    torch.save(run(out), out / f"rank_{os.environ['RANK']}.pt")
    close_process_group()


if __name__ == "__main__":
    main()
