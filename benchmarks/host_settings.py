"""What settings of the machine do to a training step on a CPU: ``python benchmarks/host_settings.py``.

The step of MobileNetV2 with fresh subnets and resolutions, in processes that differ by their environment alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from common import Figure, main
from contenders import Contender, compare_contenders, time_contenders
from training_step import build_contender, supernet_step

from pss_razor.host_settings import KEEP_FREED_MEMORY, PRIMITIVE_CACHE, find_tcmalloc

_NOTHING = dict.fromkeys(["LD_PRELOAD", "GLIBC_TUNABLES", *KEEP_FREED_MEMORY, *PRIMITIVE_CACHE], "")


def measure(batch: int, side: int, rounds: int, threads: int) -> Iterator[Figure]:
    """Ratios to the environment that Linux gives."""
    environments = {
        "as_it_is": {},
        "glibc_keeps_memory": KEEP_FREED_MEMORY,
        "huge_pages": KEEP_FREED_MEMORY | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
        "primitive_cache": KEEP_FREED_MEMORY | PRIMITIVE_CACHE,
        "bound_threads": KEEP_FREED_MEMORY | {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores"},
    }
    if library := find_tcmalloc():
        environments["tcmalloc"] = {"LD_PRELOAD": library}
        environments["tcmalloc_and_primitive_cache"] = {"LD_PRELOAD": library} | PRIMITIVE_CACHE
    build = partial(build_contender, supernet_step, "pss_mbv2_flops", batch, [side // 2, side * 3 // 4, side])
    times = time_contenders(
        {name: Contender(build, _NOTHING | settings) for name, settings in environments.items()}, rounds, threads
    )
    for name in environments:
        if name != "as_it_is":
            yield compare_contenders(
                times, name, "as_it_is", "without settings", f"batch {batch}, {side}x{side}, {threads} threads"
            )


if __name__ == "__main__":
    main(measure, "settings of the machine", batch=64, side=64, rounds=15, threads=2)
