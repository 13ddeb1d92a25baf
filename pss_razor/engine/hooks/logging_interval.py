"""When the logger writes."""

from __future__ import annotations

from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner


def is_about_to_log(hook: Hook, runner: Runner, batch_idx: int) -> bool:
    """Whether a logger writes after this training iteration, or it is the last of an epoch or a run.

    Args:
        hook: The hook that asks, in its ``after_train_iter``.
        runner: The runner.
        batch_idx: Number of the iteration in its epoch.
    """
    interval = min((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), default=1)
    return (
        hook.every_n_inner_iters(batch_idx, interval)
        or hook.every_n_train_iters(runner, interval)
        or hook.end_of_epoch(runner.train_dataloader, batch_idx)
        or hook.is_last_train_iter(runner)
    )
