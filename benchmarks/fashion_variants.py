"""Configs that differ from the paper's method in one option each: ``python benchmarks/fashion_variants.py DIR``.

They are what docs/evidence.md tells of single options, for ``tools/compare_samplers.py`` (the first group, equal
training multiply-accumulates) and ``tools/train.py`` (the second, equal steps).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pss_razor.core import atomic_write

BASE = Path(__file__).resolve().parents[1] / "configs" / "pss" / "pss_mbv2_flops_fashion.py"
_HELD_OUT = (
    'score="held_out", p_explore=(0.05, 0.05), temperature=(0.02, 0.02), rescoring=[dict(at=0.2, images=192, fresh=20, '
    "keep=5), dict(at=0.45, images=256, fresh=3, keep=2), dict(at=0.7, images=512, keep=1)], "
    "scoring_dataloader=_base_.scoring_dataloader"
)
# What a pool does -> keyword arguments of default_hooks.subnet_sampler.
OF_HOOK = {
    "relative": 'score="relative"',
    "age_corrected": "age_correction=True",
    "held_out": _HELD_OUT,
    "targets_as_space": "target_power=1.0",
    "cheap_oftener": "cost_power=-0.5",
    "by_need": "need=3.0",
    "in_turn": "in_turn=True",
    "shared_multiplier": "shared_share=1.0",
    "diverse": "min_distance=3",
    "two_sampled": "num_sampled=2",
    "smallest_any_resolution": 'smallest_resolution="any"',
    "explores_shortly": "p_explore=(1.0, 0.0001)",
    "cold": "temperature=(0.1, 0.001)",
}
# What a step does -> keyword arguments of model.
OF_MODEL = {
    "largest_first": "largest_first=(0.3, 0.1)",
    "weights_by_cost": 'loss_weights=dict(metric="flops", power=0.5)',
    "alpha_divergence": 'distillation=dict(type="AlphaDivergence")',
    "temperature_2": 'distillation=dict(type="KLDistillation", temperature=2.0)',
    "average_teaches": 'teacher="average", average_momentum=0.05',
    # Not on equal terms: these change what is compared.
    **{f"targets_{count}": f'constraints=[dict(metric="flops", num_targets={count})]' for count in (2, 4, 16)},
}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write them")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    texts = {name: f"default_hooks = dict(subnet_sampler=dict({given}))" for name, given in OF_HOOK.items()}
    texts |= {name: f"model = dict({given})" for name, given in OF_MODEL.items()}
    for name, text in texts.items():
        atomic_write(args.folder / f"{name}.py", f"_base_ = {str(BASE)!r}\n{text}\n".encode())
    print(f"written: {len(texts)} configs to {args.folder}")


if __name__ == "__main__":
    main()
