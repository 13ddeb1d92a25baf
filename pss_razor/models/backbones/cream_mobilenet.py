"""The supernet of Cream, and any architecture of its space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from pss_razor.core import (
    CREAM_OPS,
    CREAM_STAGES,
    KERNELS_AND_EXPANSIONS,
    STEM_CHANNELS,
    ConfigError,
    check_arch,
    choose_depths,
    released_model,
)
from pss_razor.registry import MODELS

from mmrazor.models.architectures.backbones import SearchableMobileNetV2
from mmrazor.models.mutables import OneShotMutableOP

_SE = dict(ratio=4, divisor=8, act_cfg=(dict(type="ReLU"), dict(type="HSigmoid", bias=3.0, divisor=6.0)))


@MODELS.register_module()
class CreamMobileNet(SearchableMobileNetV2):
    """MMRazor's ``SearchableMobileNetV2`` as Cream builds it (NeurIPS 2020, appendix).

    Exactly one of the first four arguments is given: the first two build a supernet of six ops a block, the other two
    an architecture of one op a block. Both have the same parameter names. Images of another size are resized
    (bilinear, with antialiasing).

    Args:
        flops_range: A supernet for paths of these FLOPs in millions; depth and input size follow from
            :func:`~pss_razor.core.choose_depths`.
        depths: A supernet with these numbers of blocks in stages 1 to 5.
        arch: An architecture, ``[[0], stage 1, …, stage 5, [0]]``, the index of an op for each block.
        model_selection: One of the released architectures: 14, 43, 114, 287, 481 or 604.
        input_size: Side of the images in pixels, for ``depths`` and ``arch`` only; None is 224.
        **kwargs: Of ``SearchableMobileNetV2``.

    Example:
        ``backbone=dict(type='CreamMobileNet', flops_range=(0, 287))``

    Attributes:
        flops_range: As given, else None.
        depths: Blocks of stages 1 to 5.
        input_size: Side of the images in pixels.

    Raises:
        ConfigError: Not exactly one of the first four is given, ``input_size`` is given with ``flops_range`` or
            ``model_selection``, or a value cannot work.
    """

    def __init__(
        self,
        flops_range: Sequence[float] | None = None,
        depths: Sequence[int] | None = None,
        arch: Sequence[Sequence[int]] | None = None,
        model_selection: int | None = None,
        input_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        given = dict(flops_range=flops_range, depths=depths, arch=arch, model_selection=model_selection)
        names = [name for name, value in given.items() if value is not None]
        if len(names) != 1:
            raise ConfigError(f"backbone: {names or 'nothing'} is given; give exactly one of {list(given)}")
        if input_size is not None and names[0] in ("flops_range", "model_selection"):
            raise ConfigError(f"backbone: input_size = {input_size} is given, but it follows from {names[0]}")
        input_size = 224 if input_size is None else input_size
        if flops_range is not None:
            depths, input_size = choose_depths(flops_range)
        if model_selection is not None:
            arch, input_size = released_model(model_selection)
        stages = None if arch is None else check_arch(arch)[1:-1]
        if stages is not None:
            depths = [len(stage) for stage in stages]
        assert depths is not None
        if len(depths) != len(CREAM_STAGES) or not all(isinstance(d, int) and d > 0 for d in depths):
            raise ConfigError(f"backbone: depths = {depths} must be five numbers of blocks, such as (1, 1, 3, 3, 3)")
        if not isinstance(input_size, int) or input_size < 32:
            raise ConfigError(f"backbone: input_size = {input_size} must be at least 32 pixels")

        act_cfg = dict(type="SiLU")  # Swish, as torch calls it

        def choice(kernels_and_expansions: Sequence[tuple[int, int]]) -> dict[str, Any]:
            blocks = {
                f"k{kernel}e{expansion}": dict(
                    type="MBBlock", kernel_size=kernel, expand_ratio=expansion, se_cfg=_SE, act_cfg=act_cfg
                )
                for kernel, expansion in kernels_and_expansions
            }
            return dict(type="OneShotMutableOP", candidates=blocks)

        super().__init__(
            arch_setting=[
                [STEM_CHANNELS, 1, 1, choice([(3, 1)])],
                *(
                    [channels, depth, stride, choice(KERNELS_AND_EXPANSIONS)]
                    for (channels, stride), depth in zip(CREAM_STAGES, depths, strict=True)
                ),
            ],
            first_channels=STEM_CHANNELS,
            last_channels=320,
            out_indices=(6,),
            act_cfg=act_cfg,
            **kwargs,
        )
        self.flops_range = None if flops_range is None else (flops_range[0], flops_range[1])
        self.depths = tuple(depths)
        self.input_size = input_size
        if stages is not None:
            self._fix([["k3e1"], *([CREAM_OPS[op] for op in stage] for stage in stages)])

    @property
    def blocks(self) -> list[list[OneShotMutableOP]]:
        """The mutables of stages 0 to 5, one for each block."""
        return [list(getattr(self, f"layer{stage + 1}")) for stage in range(len(CREAM_STAGES) + 1)]

    def _fix(self, ops: Sequence[Sequence[str]]) -> None:
        """Keep one op of each block."""
        for blocks, stage_ops in zip(self.blocks, ops, strict=True):
            for block, op in zip(blocks, stage_ops, strict=True):
                block.fix_chosen(op)

    @property
    def arch(self) -> list[list[int]]:
        """The active architecture, ``[[0], stage 1, …, stage 5, [0]]``."""
        stages = [
            [CREAM_OPS.index(block.choices[0] if block.is_fixed else block.current_choice) for block in blocks]
            for blocks in self.blocks[1:]
        ]
        return [[0], *stages, [0]]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features (N, 320, H / 32, W / 32) of images (N, 3, H, W), resized to the input size where they differ."""
        size = (self.input_size, self.input_size)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        return super().forward(x)
