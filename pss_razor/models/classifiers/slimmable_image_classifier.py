"""An image classifier whose input resolution is searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pss_razor.core import ConfigError
from pss_razor.registry import MODELS

from mmrazor.models.architectures.classifiers import SearchableImageClassifier
from mmrazor.models.architectures.dynamic_ops import DynamicInputResizer
from mmrazor.models.mutables import OneShotMutableValue


class _InputResizer(DynamicInputResizer):
    """``DynamicInputResizer`` that returns a batch of the wanted size as it is."""

    def forward(self, x: Tensor, size: int | None = None) -> Tensor:
        size = self.get_dynamic_shape()
        return x if x.shape[-2:] == (size, size) else super().forward(x, size)


@MODELS.register_module()
class SlimmableImageClassifier(SearchableImageClassifier):
    """MMRazor's ``SearchableImageClassifier`` with square integer resolutions and PSS-Net's interpolation.

    The batch comes at the largest resolution and is interpolated on the device (bilinear, corners aligned). The head
    is connected with the backbone's last mutable where the backbone searches its output width.

    Args:
        resolutions: Input resolutions in pixels to choose from; the search group ``resolution``. None: the
            resolution is not searched.
        **kwargs: Of ``SearchableImageClassifier``: ``backbone``, ``neck``, ``head``, ``data_preprocessor``,
            ``init_cfg``, …

    Example:
        ``architecture=dict(type='SlimmableImageClassifier', resolutions=[128, 160, 192, 224], backbone=…)``
    """

    def __init__(self, resolutions: list[int] | None = None, **kwargs: Any) -> None:
        if resolutions is not None and not (resolutions and all(isinstance(r, int) and r > 0 for r in resolutions)):
            raise ConfigError(f"resolutions = {resolutions} must be positive whole numbers of pixels, or None")
        resizer = None if resolutions is None else dict(input_sizes=list(resolutions))
        super().__init__(input_resizer_cfg=resizer, **kwargs)
        last_mutable = getattr(self.backbone, "last_mutable", None)
        if last_mutable is not None and self.head is not None:
            if not hasattr(self.head, "connect_with_backbone"):
                raise ConfigError(
                    f"the backbone searches its output width, but the head {type(self.head).__name__} cannot follow; "
                    "use head=dict(type='SlicedLinearClsHead', …)"
                )
            self.head.connect_with_backbone(last_mutable)

    def _build_input_resizer(self, input_resizer_cfg: Mapping[str, Any]) -> DynamicInputResizer:
        resizer = _InputResizer(interpolation_type="bilinear", align_corners=True)
        resizer.register_mutable_attr(
            "shape", OneShotMutableValue(input_resizer_cfg["input_sizes"], alias="resolution")
        )
        return resizer
