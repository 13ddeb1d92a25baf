"""Configs of docs/evidence.md that change a recipe in one thing: ``python benchmarks/fashion_variants.py DIR``.

DIR/options has options of the paper's method, and DIR/plus what was tried before PSS+, for
``tools/compare_samplers.py --equal-macs``; DIR/diagnosed is for ``tools/train.py`` and ``tools/diagnose_pools.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pss_razor.core import atomic_write

_CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "pss"
BASE = _CONFIGS / "pss_mbv2_flops_fashion.py"
PLUS = _CONFIGS / "pss_plus_mbv2_flops_fashion.py"
_SCORINGS = (
    "dict(at=0.2, images=192, fresh=20, keep=5), dict(at=0.45, images=256, fresh=3, keep=2), "
    "dict(at=0.7, images=512, keep=1)"
)
_HELD_OUT = (
    f'score="held_out", p_explore=(0.05, 0.05), temperature=(0.02, 0.02), rescoring=[{_SCORINGS}], '
    "scoring_dataloader=_base_.scoring_dataloader"
)
# Name -> keyword arguments of default_hooks.subnet_sampler.
OF_HOOK = {
    "relative": 'score="relative"',
    "age_corrected": "age_correction=True",
    "held_out": _HELD_OUT,
    "drawn_as_space_has_them": "target_power=1.0",
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
# Name -> keyword arguments of model.
OF_MODEL = {
    "largest_first": "largest_first=(0.3, 0.1)",
    "weights_by_cost": 'loss_weights=dict(metric="flops", power=0.5)',
    "alpha_divergence": 'distillation=dict(type="AlphaDivergence")',
    "temperature_2": 'distillation=dict(type="KLDistillation", temperature=2.0)',
    "average_teaches": 'teacher="average", average_momentum=0.05',
}
TARGETS = (2, 4, 16)


def texts() -> dict[str, str]:
    """Path below the folder -> content."""

    def of_hook(base: Path, given: str) -> str:
        return f"_base_ = {str(base)!r}\ndefault_hooks = dict(subnet_sampler=dict({given}))\n"

    def of_model(given: str) -> str:
        return f"_base_ = {str(BASE)!r}\nmodel = dict({given})\n"

    found = {f"options/{name}.py": of_hook(BASE, given) for name, given in OF_HOOK.items()}
    found |= {f"options/{name}.py": of_model(given) for name, given in OF_MODEL.items()}
    former = 'smallest_resolution="smallest", target_power=(1.0, 0.0), cost_power=-0.5'
    found["plus/former.py"] = of_hook(PLUS, former)
    found["plus/scored_late.py"] = of_hook(
        PLUS, "rescoring=[dict(at=0.5, images=192, fresh=20, keep=5), dict(at=0.75, images=512, keep=3)]"
    )
    for count in TARGETS:
        found[f"diagnosed/targets_{count}.py"] = of_model(f'constraints=[dict(metric="flops", num_targets={count})]')
    # The pools are full in the end of subnets that were all scored on the same images.
    late = f"rescoring=[{_SCORINGS}, dict(at=0.95, images=512, fresh=20, keep=20)]"
    return found | {"diagnosed/scored_at_the_end.py": of_hook(PLUS, late)}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write them")
    args = parser.parse_args()
    contents = texts()
    for name, text in contents.items():
        path = args.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text.encode())
    print(f"written: {len(contents)} configs to {args.folder}")


if __name__ == "__main__":
    main()
