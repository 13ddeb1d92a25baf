"""How the PSS-Net authors' program names the parts of its backbones, and what they are called here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PSSNetLayout:
    """One backbone of the authors' program.

    Args:
        backbone: As in the names of configs and of released models, e.g. ``"mbv1"``.
        title: Name in messages.
        model_name: As the keys of the authors' pools have it.
        widths: Search group -> base width, in the order of the authors' multipliers.
        num_multipliers: How many multipliers a subnet has; those after the widths' are ignored.
        modules: The authors' name of a conv, BN or linear layer -> ours.
    """

    backbone: str
    title: str
    model_name: str
    widths: Mapping[str, int]
    num_multipliers: int
    modules: Mapping[str, str]

    def rename(self, name: object) -> str | None:
        """``module.features.2.body.4.bn.running_var`` -> ``architecture.backbone.layer2.0.conv.1.bn.running_var``.

        None if it is not of this backbone. Data parallelism adds the prefix; the authors' BN keeps its statistics in a
        child ``bn``.
        """
        module, _, leaf = str(name).removeprefix("module.").rpartition(".")
        ours = self.modules.get(module.removesuffix(".bn"))
        return None if ours is None else f"{ours}.{leaf}"


def _modules(convs: Iterable[tuple[str, int, str]]) -> dict[str, str]:
    """Names of convs and the BNs after them, from (their parent of a conv, its position, our ``ConvModule``)."""
    modules = {}
    for theirs, position, ours in convs:
        modules[f"{theirs}.{position}"] = f"architecture.backbone.{ours}.conv"
        modules[f"{theirs}.{position + 1}"] = f"architecture.backbone.{ours}.bn"
    return {**modules, "classifier.0": "architecture.head.fc"}


# Conv, BN, ReLU6, conv, …: every third is a conv.
_MOBILENET_V1 = PSSNetLayout(
    backbone="mbv1",
    title="MobileNetV1",
    model_name="mobilenet_v1",
    widths=dict(
        stem=32, block1=64, block2=128, block3=128, block4=256, block5=256, block6=512, block7=512, block8=512,
        block9=512, block10=512, block11=512, block12=1024, block13=1024,
    ),
    num_multipliers=14,
    modules=_modules(
        [
            ("features.0", 0, "stem"),
            *((f"features.{n}", 3 * conv, f"blocks.{n - 1}.{conv}") for n in range(1, 14) for conv in range(2)),
        ]
    ),
)  # fmt: skip
# features.1 … features.17, as mmcls calls them.
_BLOCKS = [f"layer{layer}.{block}" for layer, count in enumerate((1, 2, 3, 4, 3, 3, 1), 1) for block in range(count)]
_MOBILENET_V2 = PSSNetLayout(
    backbone="mbv2",
    title="MobileNetV2",
    model_name="mobilenet_v2",
    widths=dict(stem=32, stage1=16, stage2=24, stage3=32, stage4=64, stage5=96, stage6=160, stage7=320),
    # The ninth is of the last conv; the authors' model ignores it as ours does.
    num_multipliers=9,
    modules=_modules(
        [
            ("features.0", 0, "conv1"),
            *(
                (f"features.{n}.body", 3 * conv, f"{block}.conv.{conv}")
                for n, block in enumerate(_BLOCKS, 1)
                for conv in range(2 if n == 1 else 3)  # the first block does not expand
            ),
            ("features.18", 0, "conv2"),
        ]
    ),
)
LAYOUTS = (_MOBILENET_V1, _MOBILENET_V2)


def find_layout(names: Iterable[object]) -> PSSNetLayout:
    """The backbone that most of the tensors' names are of."""
    names = list(names)
    return max(LAYOUTS, key=lambda layout: sum(layout.rename(name) is not None for name in names))
