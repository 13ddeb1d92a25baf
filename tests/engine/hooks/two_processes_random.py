"""Run by test_random_state_hook.py, once in each of two processes: train, resume, and write down what was drawn."""

import sys
from pathlib import Path

import numpy as np
import torch

from pss_razor.engine.launch import build_runner, close_process_group, load_config
from pss_razor.evaluation.checks import get_model
from pss_razor.registry import TRANSFORMS

from mmcv.transforms import BaseTransform
from mmengine.dist import get_rank
from mmengine.hooks import Hook


@TRANSFORMS.register_module()
class ShowDraw(BaseTransform):
    """Writes what an augmentation could draw into the first pixel."""

    def transform(self, results):
        results["img"] = results["img"].copy()
        results["img"][0, 0] = np.random.randint(256, size=3)
        return results


class Recorder(Hook):
    """The draws of the images, the active subnets, and dropout's next number, of every epoch."""

    priority = "LOW"

    def __init__(self):
        self.pixels, self.subnets = {}, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.pixels.setdefault(runner.epoch, []).extend(image[:, 0, 0].tolist() for image in data_batch["inputs"])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        mutator = getattr(get_model(runner), "mutator", None)
        if mutator is not None:
            self.subnets.setdefault(runner.epoch, []).append(dict(mutator.active_subnet))


def train(config_file: str, work_dir: Path, workers: int, resume_from: Path | None) -> dict:
    config = load_config(config_file, None, "pytorch", str(work_dir))
    config.experiment_name = work_dir.name
    config.train_cfg.max_epochs = 2
    config.train_dataloader.batch_size = 8
    config.train_dataloader.update(num_workers=workers, persistent_workers=False)
    if workers:
        config.train_dataloader.worker_init_fn = dict(type="epoch_worker_seed")
    config.train_dataloader.dataset.pipeline.insert(-1, dict(type="ShowDraw"))
    config.load_from, config.resume = resume_from and str(resume_from), resume_from is not None
    runner, recorder = build_runner(config), Recorder()
    runner.register_hook(recorder)
    runner.train()
    return {"pixels": recorder.pixels, "subnets": recorder.subnets}


def main() -> None:
    config_file, work_dir, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    record = {"straight": train(config_file, work_dir / "straight", workers, None)}
    record["resumed"] = train(config_file, work_dir / "resumed", workers, work_dir / "straight" / "epoch_1.pth")
    torch.save(record, work_dir / f"rank_{get_rank()}.pt")
    close_process_group()


if __name__ == "__main__":
    main()
