"""Settings of the machine that make a training on a CPU faster: ``python -m pss_razor.host_settings COMMAND …``.

They must be there before a process starts, so this runs a command with those that it does not have yet. The launch
scripts do it; with ``PSS_HOST_SETTINGS=0`` in the environment nothing is set.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Above the size of any block, so that glibc returns none to the system.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
# A subnet with other widths needs other primitives of oneDNN, which keeps 1,024 by itself.
PRIMITIVE_CACHE = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192"}
_OTHER_ALLOCATORS = re.compile(r"/lib(tcmalloc|jemalloc|mimalloc)[^/]*\.so")


@dataclass(frozen=True)
class HostSettings:
    """What a process runs with.

    Args:
        allocator: Of the C library: ``"glibc"``, ``"glibc, keeps freed memory"``, ``"tcmalloc"``, …
        primitives: How many primitives oneDNN keeps; None is oneDNN's own number.
        threads: Of torch.
        cores: That the process may use.
        huge_pages: Transparent huge pages: ``always``, ``madvise``, ``never``, or ``unknown``.
    """

    allocator: str
    primitives: int | None
    threads: int
    cores: int
    huge_pages: str

    def __str__(self) -> str:
        primitives = "as it comes" if self.primitives is None else f"{self.primitives}"
        return (
            f"allocator {self.allocator}; oneDNN's primitives kept: {primitives}; {self.threads} threads on "
            f"{self.cores} cores; transparent huge pages: {self.huge_pages}"
        )

    def missing(self) -> list[str]:
        """What pays on a CPU and is not set, each with what to do; docs/performance.md has the figures."""
        found = []
        if self.allocator == "glibc":
            found.append("glibc returns large blocks to the system after every use")
        if self.allocator.startswith("glibc") and find_tcmalloc() is None:
            found.append("tcmalloc, a faster allocator, is not installed (Debian: apt install libtcmalloc-minimal4)")
        if self.primitives is None:
            found.append("oneDNN forgets the subnets of earlier steps")
        if found:
            found.append("start it by: python -m pss_razor.host_settings COMMAND")
        return found


def read_host_settings() -> HostSettings:
    """The settings of this process."""
    import torch  # late: a command that is started with settings needs none of it

    primitives = os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "")
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", pages.read_text()) if pages.is_file() else None
    return HostSettings(
        allocator=_read_allocator(),
        primitives=int(primitives) if primitives.isdecimal() else None,
        threads=torch.get_num_threads(),
        cores=len(cores),
        huge_pages=chosen[1] if chosen else "unknown",
    )


def _read_allocator() -> str:
    maps = Path("/proc/self/maps")
    found = _OTHER_ALLOCATORS.search(maps.read_text()) if maps.is_file() else None
    if found:
        return found[1]
    name = platform.libc_ver()[0] or platform.system()
    return f"{name}, keeps freed memory" if all(os.environ.get(key) for key in KEEP_FREED_MEMORY) else name


def find_tcmalloc() -> str | None:
    """Path of a tcmalloc for this machine's programs, if there is one."""
    try:
        listing = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None  # no Linux, or no glibc
    paths = re.findall(r"libtcmalloc(?:_minimal)?\.so\.\d+ \(.*\) => (\S+)", listing)
    return paths[0] if paths else None


def faster(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to an environment; what it has already stays as it is."""
    if environment.get("PSS_HOST_SETTINGS") == "0":
        return {}
    library = None if _OTHER_ALLOCATORS.search(environment.get("LD_PRELOAD", "")) else find_tcmalloc()
    preloaded = {"LD_PRELOAD": " ".join(filter(None, [library, environment.get("LD_PRELOAD")]))} if library else {}
    added = {**KEEP_FREED_MEMORY, **PRIMITIVE_CACHE}
    return preloaded | {key: value for key, value in added.items() if key not in environment}


def main() -> None:
    """Run a command with these settings, in place of this process."""
    command = sys.argv[1:]
    if not command or command[0].startswith("-"):
        sys.exit("usage: python -m pss_razor.host_settings COMMAND [arguments]; PSS_HOST_SETTINGS=0 sets nothing")
    try:
        os.execvpe(command[0], command, {**os.environ, **faster(os.environ)})
    except OSError as error:
        sys.exit(f"error: {command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main()
