"""The hook that decides which path Cream trains, which paths teach, and when the meta layer learns."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from pss_razor import compat
from pss_razor.checkpoints.checkpoint import check_state_dict
from pss_razor.core import (
    BoardEntry,
    CheckpointError,
    ConfigError,
    PathBoard,
    PathSampler,
    Subnet,
    TrainingDivergedError,
    atomic_write,
)
from pss_razor.evaluation.bn_calibration import calibrate_bn
from pss_razor.evaluation.calibration_images import load_calibration_batches
from pss_razor.evaluation.checks import get_model
from pss_razor.models import Cream, CreamStep
from pss_razor.registry import HOOKS

from mmengine.dist import all_gather, broadcast, master_only
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

_CALIBRATION_BATCHES = 9


@HOOKS.register_module()
class PathBoardHook(Hook):
    """Draw a path before every training iteration, and enter it on the board of prioritized paths (Cream, section 3).

    Writes the board, once it has paths, to ``board.json`` after every epoch, and the result, the board's most accurate
    path within ``mflops_range``, to ``best_fix_subnet.yaml``, as MMRazor's searches do.

    Args:
        pool_size: Most paths on the board.
        meta_start_epoch: Epochs of plain training before the board opens.
        update_iter: Iterations from one meta update to the next.
        sampling: How paths are drawn: ``"even"``, ``"pre_prob"`` or ``"teacher"``; see
            :class:`~pss_razor.core.PathSampler`.
        op_probabilities: Probability of each op, for ``"pre_prob"``.
        seed: Seed of the draws; None takes the runner's.
        mflops_range: Least and most FLOPs of the result, in millions of multiply-accumulates of the whole network. None
            takes the backbone's ``flops_range``, although that counts the searched blocks alone.

    Example:
        ``default_hooks=dict(path_board=dict(type='PathBoardHook', pool_size=10, meta_start_epoch=20))``
    """

    priority = "NORMAL"
    checkpoint_key = "cream"

    def __init__(
        self,
        pool_size: int = 10,
        meta_start_epoch: int = 20,
        update_iter: int = 200,
        sampling: str = "even",
        op_probabilities: Sequence[float] = (0.05, 0.2, 0.05, 0.5, 0.05, 0.15),
        seed: int | None = None,
        mflops_range: tuple[float, float] | None = None,
    ) -> None:
        if mflops_range is not None and not 0 <= mflops_range[0] <= mflops_range[1]:
            raise ConfigError(f"PathBoardHook: mflops_range = {mflops_range} must be two numbers, least and most")
        for name, value in dict(meta_start_epoch=meta_start_epoch, update_iter=update_iter - 1).items():
            if value < 0:
                raise ConfigError(f"PathBoardHook: {name} is too low; meta_start_epoch >= 0, update_iter >= 1")
        self.meta_start_epoch = meta_start_epoch
        self.update_iter = update_iter
        self.sampling = sampling
        self.op_probabilities = op_probabilities
        self.seed = seed
        self.mflops_range = mflops_range
        self.board = PathBoard(pool_size)
        self._path: Subnet | None = None

    def before_run(self, runner: Runner) -> None:
        """Build the sampler of paths."""
        space = _algorithm(runner).space
        seed = self.seed if self.seed is not None else runner.seed
        self.sampler = PathSampler(space, self.sampling, self.op_probabilities, seed)

    def before_train(self, runner: Runner) -> None:
        """Check schedule, optimizer and batches; warn if no path of the supernet can be in ``mflops_range``."""
        algorithm = _algorithm(runner)
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ConfigError("Cream's schedule counts epochs; set train_cfg.by_epoch=True")
        if self.meta_start_epoch >= runner.max_epochs:
            raise ConfigError(
                f"PathBoardHook: meta_start_epoch = {self.meta_start_epoch} is not before the end of training, "
                f"train_cfg.max_epochs = {runner.max_epochs}: the board would stay empty"
            )
        if compat.accumulative_counts(runner.optim_wrapper) != 1:
            raise ConfigError("optim_wrapper.accumulative_counts must be 1: each iteration trains another path")
        batch_size, least = runner.train_dataloader.batch_size, 2 * algorithm.slice_size
        if batch_size < least or not runner.train_dataloader.drop_last:
            raise ConfigError(
                f"train_dataloader: batch_size = {batch_size} with drop_last = {runner.train_dataloader.drop_last}; "
                f"a meta update takes two slices, so set drop_last=True and at least {least} images"
            )
        ends = algorithm.flops(algorithm.space.encode([algorithm.space.smallest, algorithm.space.largest]))
        least_flops, most_flops = self._range_of_result(algorithm)
        if ends[0] > most_flops or ends[1] < least_flops:
            runner.logger.warning(
                f"paths of this supernet have {ends[0]:.4g} to {ends[1]:.4g} MFLOPs with stem and head, none of them "
                f"in mflops_range {(least_flops, most_flops)}: the result will be the path that is nearest"
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Draw the path of this iteration, and say whether a meta update is due."""
        self._path = self.sampler.draw(self.board)
        since_start = runner.iter - self.meta_start_epoch * len(runner.train_dataloader)
        algorithm = _algorithm(runner)
        due = algorithm.matching is not None and since_start > 0 and since_start % self.update_iter == 0
        algorithm.next_step = CreamStep(self._path, self.board[:], meta_update=due and len(self.board) > 0)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Once the board is open, enter the path if it is good enough; the same on all ranks."""
        assert self._path is not None and outputs is not None
        if runner.epoch < self.meta_start_epoch:
            return
        algorithm = _algorithm(runner)
        # One read of the device. Summed in rank order, so that all ranks get the same bits.
        own = torch.stack([outputs[name].detach().float().reshape(()) for name in ("accuracy", "loss")])
        accuracies, losses = zip(*torch.stack(all_gather(own)).tolist(), strict=True)
        if not all(map(math.isfinite, losses)):
            raise TrainingDivergedError("the training loss is not finite; lower the learning rate")
        accuracy = sum(accuracies) / len(accuracies)
        flops = float(algorithm.flops(algorithm.space.encode([self._path]))[0])
        if self.board.accepts(accuracy, flops):
            assert algorithm.memory is not None, "of the step before"
            images, targets = (tensor.clone() for tensor in algorithm.memory)
            broadcast(images)
            broadcast(targets)
            self.board.add(BoardEntry(accuracy, flops, self._path, images, targets))
        runner.message_hub.update_scalar("train/board_best", self.board[0].accuracy)
        runner.message_hub.update_scalar("train/board_last", self.board[-1].accuracy)
        runner.message_hub.update_scalar("train/board_entries", len(self.board))

    def after_train_epoch(self, runner: Runner) -> None:
        """Log and write the board."""
        if self.board:
            rows = [
                f"{entry.accuracy:7.2f} % {entry.flops:9.2f} MFLOPs  {_arch(runner, entry)}" for entry in self.board
            ]
            runner.logger.info("board of prioritized paths\n" + "\n".join(rows))
            self._write_board(runner)

    def after_train(self, runner: Runner) -> None:
        """Write the best path within ``mflops_range``, or the one nearest to it."""
        algorithm = _algorithm(runner)
        least, most = self._range_of_result(algorithm)
        best = self.board.best_within((least, most))
        if not least <= best.flops <= most:
            runner.logger.warning(
                f"no path of the board is in mflops_range {(least, most)}; the nearest has {best.flops:.4g} MFLOPs"
            )
        path = Path(runner.work_dir, "best_fix_subnet.yaml")
        self._write(path, yaml.safe_dump({name: {"chosen": op} for name, op in best.path.items()}))
        runner.logger.info(
            f"best path: {best.accuracy:.2f} % on its batch, {best.flops:.2f} MFLOPs, {_arch(runner, best)}; "
            f"written to {path}"
        )

    def before_test(self, runner: Runner) -> None:
        """Activate the result and calibrate its BN.

        Raises:
            CheckpointError: The board is empty.
        """
        if not self.board:
            raise CheckpointError(
                f"the board of paths is empty, there is nothing to test: it opens after {self.meta_start_epoch} epochs"
            )
        algorithm = _algorithm(runner)
        best = self.board.best_within(self._range_of_result(algorithm))
        algorithm.mutator.activate(best.path)

        def forward(batch: Any) -> None:
            algorithm(algorithm.data_preprocessor(batch, False)["inputs"], mode="tensor")

        calibrate_bn(algorithm, load_calibration_batches(runner.train_dataloader, _CALIBRATION_BATCHES), forward)
        runner.logger.info(f"testing {best.flops:.2f} MFLOPs, {_arch(runner, best)}, with the supernet's weights")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the board and the generator of the draws."""
        checkpoint[self.checkpoint_key] = {
            "board": self.board.state_dict(self.sampler.space),
            "generator": self.sampler.generator.bit_generator.state,
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore the board and the generator of the draws, unless the checkpoint only initialises a training."""
        training = compat.is_training(runner)
        if training and not compat.resumes(runner):
            runner.logger.info("load_from initialises the weights only; the board starts empty")
            return
        algorithm = _algorithm(runner)
        check_state_dict(algorithm, checkpoint["state_dict"])
        if self.checkpoint_key not in checkpoint:
            raise CheckpointError(
                f"the checkpoint has no board of paths (key {self.checkpoint_key!r}): it was not trained with "
                "PathBoardHook"
            )
        state = checkpoint[self.checkpoint_key]
        device = next(algorithm.parameters()).device
        self.board.load_state_dict(
            self.sampler.space,
            [
                {**record, "images": record["images"].to(device), "targets": record["targets"].to(device)}
                for record in state["board"]
            ],
        )
        self.sampler.generator.bit_generator.state = state["generator"]

    def _range_of_result(self, algorithm: Cream) -> tuple[float, float]:
        """Least and most multiply-accumulates of the whole network, in millions."""
        own = self.mflops_range or getattr(algorithm.architecture.backbone, "flops_range", None)
        return (0.0, math.inf) if own is None else (own[0], own[1])

    def _write_board(self, runner: Runner) -> None:
        records = [
            {"accuracy": entry.accuracy, "flops": entry.flops, "arch": _arch(runner, entry)} for entry in self.board
        ]
        self._write(Path(runner.work_dir, "board.json"), json.dumps(records, indent=1))

    @staticmethod
    @master_only
    def _write(path: Path, text: str) -> None:
        atomic_write(path, text.encode())


def _algorithm(runner: Runner) -> Cream:
    """The Cream algorithm of a runner, unwrapped.

    Raises:
        ConfigError: The model is something else.
    """
    model = get_model(runner)
    if not isinstance(model, Cream):
        raise ConfigError(f"the model is a {type(model).__name__}; PathBoardHook needs model=dict(type='Cream', …)")
    return model


def _arch(runner: Runner, entry: BoardEntry) -> list[list[int]]:
    algorithm = _algorithm(runner)
    with algorithm.mutator.active(entry.path):
        return algorithm.architecture.backbone.arch
