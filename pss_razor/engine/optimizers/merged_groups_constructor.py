"""Parameter-wise options without a group for each parameter."""

from __future__ import annotations

from typing import Any

from torch import nn

from pss_razor.registry import OPTIM_WRAPPER_CONSTRUCTORS

from mmengine.optim import DefaultOptimWrapperConstructor


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergedGroupsConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor with the same ``paramwise_cfg``, parameters of equal options merged into one group.

    The original makes a group of every single parameter, for which torch's multi-tensor and fused steps do nothing.

    Example:
        ``optim_wrapper=dict(constructor='MergedGroupsConstructor', paramwise_cfg=dict(norm_decay_mult=0), …)``
    """

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", **kwargs: Any) -> None:
        """Add the parameters of ``module`` and its children; at the root, merge."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:
            return
        merged: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
        for group in params:
            options = {key: value for key, value in group.items() if key != "params"}
            for name, default in (("lr", self.base_lr), ("weight_decay", self.base_wd)):
                if default is not None:  # else the optimizer has its own
                    options.setdefault(name, default)
            key = tuple(sorted(options.items()))
            merged.setdefault(key, {**options, "params": []})["params"] += group["params"]
        params[:] = merged.values()
