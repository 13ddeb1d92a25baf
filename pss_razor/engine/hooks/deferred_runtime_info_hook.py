"""mmengine's hook for the logs, without waiting for the device in every iteration."""

from __future__ import annotations

from typing import Any

import torch

from pss_razor.engine.hooks.logging_interval import is_about_to_log
from pss_razor.registry import HOOKS

from mmengine.hooks import RuntimeInfoHook
from mmengine.runner import Runner


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """``RuntimeInfoHook`` that reads the outputs of training steps all at once, just before they are logged.

    mmengine's reads every scalar in every iteration. Each read waits for the step to end, so that a GPU idles while the
    next step is prepared. The logs are the same. Outputs may be numbers, and tensors on any device, whose means
    are logged.

    Example:
        ``default_hooks=dict(runtime_info=dict(type='DeferredRuntimeInfoHook'), …)``
    """

    def __init__(self) -> None:
        self._unread: list[dict[str, torch.Tensor]] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Keep the outputs; read them where the logger is about to write."""
        if outputs is not None:
            self._unread.append(outputs)
        if is_about_to_log(self, runner, batch_idx):
            self._read(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Read the outputs, so that the checkpoint has the logs of all iterations before it."""
        self._read(runner)

    def _read(self, runner: Runner) -> None:
        """Give mmengine the values in the order of the iterations."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        # One transfer for each device: tensors of different devices cannot be stacked.
        places: dict[torch.device, list[tuple[int, str, torch.Tensor]]] = {}
        values = [dict(outputs) for outputs in unread]
        for step, outputs in enumerate(unread):
            for name, value in outputs.items():
                if isinstance(value, torch.Tensor):
                    places.setdefault(value.device, []).append((step, name, value.detach().double().mean()))
        for placed in places.values():
            read = torch.stack([value for _, _, value in placed]).tolist()
            for (step, name, _), value in zip(placed, read, strict=True):
                values[step][name] = value
        for outputs in values:
            for name, value in outputs.items():
                runner.message_hub.update_scalar(f"train/{name}", value)
