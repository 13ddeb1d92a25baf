"""Run by test_cream_distributed.py, once in each of two processes: search and write down what happened."""

import sys
from pathlib import Path

import torch

from pss_razor.engine.launch import build_runner, close_process_group, load_config

from mmengine.dist import get_rank
from mmengine.hooks import Hook


class Recorder(Hook):
    """Paths, images and labels of every iteration, the gradients that are stepped on, and the first meta update."""

    def __init__(self):
        self.iterations = []
        self.meta = None

    def before_train(self, runner):
        self.algorithm = runner.model.module
        self.compute = self.algorithm.meta_gradients
        self.algorithm.meta_gradients = self.meta_gradients
        runner.optim_wrapper.optimizer.register_step_pre_hook(self.before_step)

    def meta_gradients(self, inputs, samples, board, learning_rate):
        state = {name: tensor.clone() for name, tensor in self.algorithm.state_dict().items()}
        results = self.compute(inputs, samples, board, learning_rate)
        if self.meta is None:
            names = {id(p): name for name, p in self.algorithm.named_parameters()}
            gradients = {names[id(p)]: g.clone() for result in results for p, g in result.items()}
            labels = torch.cat([sample.gt_label.label for sample in samples])
            entries = [{"path": dict(e.path), "images": e.images.clone(), "targets": e.targets.clone()} for e in board]
            path = dict(self.algorithm.mutator.active_subnet)
            self.meta = {"state": state, "inputs": inputs.clone(), "labels": labels, "board": entries, "path": path}
            self.meta |= {"learning_rate": learning_rate, "gradients": gradients}
        return results

    def before_step(self, *args):
        self.gradients = {n: p.grad.clone() for n, p in self.algorithm.named_parameters() if p.grad is not None}
        self.before = {n: t.clone() for n, t in self.algorithm.state_dict().items()}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        step = self.algorithm.next_step
        self.record = {"path": dict(step.path), "board": len(step.board), "meta_update": step.meta_update}
        self.record["inputs"] = torch.stack(list(data_batch["inputs"]))
        self.record["labels"] = [int(sample.gt_label.label) for sample in data_batch["data_samples"]]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        accuracy = float(outputs["accuracy"])
        self.iterations.append(
            {**self.record, "before": self.before, "gradients": self.gradients, "accuracy": accuracy}
        )


def train(config_file: str, work_dir: str) -> dict:
    config = load_config(config_file, None, "pytorch", work_dir)
    config.train_cfg.max_epochs = 2
    config.train_dataloader.batch_size = 8  # a total of 16, as in one process
    runner = build_runner(config)
    recorder = Recorder()
    runner.register_hook(recorder, priority="LOW")  # after the path is drawn
    runner.train()
    hook = next(hook for hook in runner.hooks if hasattr(hook, "board"))
    return {
        "iterations": recorder.iterations,
        "meta": recorder.meta,
        "parameters": dict(runner.model.module.named_parameters()),
        "board": hook.board.state_dict(hook.sampler.space),
        "generator": hook.sampler.generator.bit_generator.state,
    }


def main() -> None:
    torch.set_num_threads(1)
    config_file, work_dir = sys.argv[1:]
    torch.save(train(config_file, work_dir), Path(work_dir) / f"rank_{get_rank()}.pt")
    close_process_group()


if __name__ == "__main__":
    main()
