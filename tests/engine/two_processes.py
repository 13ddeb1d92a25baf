"""Run by test_distributed.py, once in each of two processes: train two epochs and write down what happened."""

import sys
from collections import Counter
from pathlib import Path

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from pss_razor.engine.hooks import TrainingCostHook
from pss_razor.engine.launch import build_runner, close_process_group, load_config

from mmengine.dist import get_rank
from mmengine.hooks import Hook


class Recorder(Hook):
    """Batches, subnets, optimizer steps, and how many gradient elements are exchanged at each iteration."""

    def __init__(self):
        self.iterations = []
        self.counts = Counter()

    def before_train(self, runner):
        # DDP calls this hook instead of its own all-reduce, once for each bucket of gradients that it exchanges.
        runner.model.register_comm_hook(None, self.exchange)
        self.parameters = dict(runner.model.module.named_parameters())
        runner.optim_wrapper.optimizer.register_step_pre_hook(self.before_step)

    def exchange(self, state, bucket):
        self.counts["exchanged"] += bucket.buffer().numel()
        return allreduce_hook(None, bucket)

    def before_step(self, *args):
        self.counts["steps"] += 1
        self.before = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        # Ops that no subnet of the step has used have none.
        self.gradients = {name: p.grad.clone() for name, p in self.parameters.items() if p.grad is not None}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.counts.clear()
        self.subnets = [dict(subnet) for subnet in runner.model.module.sampled_subnets]
        samples = [int(sample.gt_label.label) for sample in data_batch["data_samples"]]
        self.batch = {"inputs": torch.stack(list(data_batch["inputs"])), "labels": samples}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        step = {"before": self.before, "gradients": self.gradients, "loss": outputs["loss"]}
        self.iterations.append({"subnets": self.subnets, "batch": self.batch, **step, **self.counts})


def train(config_file: str, work_dir: str) -> dict:
    config = load_config(config_file, None, "pytorch", work_dir)
    config.train_cfg.max_epochs = 2
    config.train_cfg.val_interval = 1
    config.train_dataloader.batch_size = 8  # a total of 16, as in one process
    runner = build_runner(config)
    for module in runner.model.modules():
        if isinstance(module, torch.nn.Dropout):  # its draws would tell one process from two
            module.p = 0.0
    recorder = Recorder()
    runner.register_hook(recorder, priority="LOW")  # after the subnet is drawn
    runner.train()
    sampler = next(hook.sampler for hook in runner.hooks if hasattr(hook, "sampler"))
    return {
        "iterations": recorder.iterations,
        "parameters": dict(runner.model.module.named_parameters()),
        "sampler": sampler.state_dict(),
        "cost": next(hook.cost for hook in runner.hooks if isinstance(hook, TrainingCostHook)),
        "metrics": runner.val_loop.run(),
        "dtype": runner.model.module.data_preprocessor.mean.dtype,
    }


def main() -> None:
    torch.set_num_threads(1)
    config_file, work_dir = sys.argv[1:]
    torch.save(train(config_file, work_dir), Path(work_dir) / f"rank_{get_rank()}.pt")
    close_process_group()


if __name__ == "__main__":
    main()
