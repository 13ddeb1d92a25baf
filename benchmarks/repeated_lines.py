"""Lines of Python of a commit, and where lines stand again: ``python benchmarks/repeated_lines.py REVISION …``.

Two places are a pair if six lines or more are the same, white space aside. Blank lines, comments, imports and lines
without a letter are passed over. Lines are counted with all of these.
"""

from __future__ import annotations

import argparse
import io
import itertools
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = 6
FOLDERS = ("pss_razor/", "pss_razor/commands/", "configs/")


def read_python(revision: str) -> dict[str, str]:
    """Path -> text of every Python file of a commit."""
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        members = [member for member in files if member.isfile() and member.name.endswith(".py")]
        return {member.name: files.extractfile(member).read().decode() for member in members}  # type: ignore[union-attr]


def significant_lines(text: str) -> list[str]:
    """The lines that count, white space folded."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [line for line in lines if any(map(str.isalpha, line)) and not line.startswith(("#", "import ", "from "))]


def repeated_places(files: Mapping[str, str]) -> list[tuple[str, str]]:
    """Files of each pair of places that share a run of at least :data:`RUN` lines; a run counts once."""
    places = defaultdict(list)
    for path, text in files.items():
        lines = significant_lines(text)
        for start in range(len(lines) - RUN + 1):
            places[tuple(lines[start : start + RUN])].append((path, start))
    equal = {pair for own in places.values() for pair in itertools.combinations(own, 2)}
    return [
        (first, second)
        for (first, i), (second, j) in equal
        if ((first, i - 1), (second, j - 1)) not in equal and (first != second or j - i >= RUN)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each commit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="*", default=["HEAD"], metavar="REVISION", help="commits (default: HEAD)")
    parser.add_argument("--list", action="store_true", help="print the files of each pair, too")
    args = parser.parse_args(arguments)
    for revision in args.revisions:
        files = read_python(revision)
        counts = [
            f"{folder} {sum(text.count(chr(10)) for path, text in files.items() if path.startswith(folder)):,}"
            for folder in FOLDERS
        ]
        pairs = repeated_places(files)
        print(f"{revision}: lines of {', '.join(counts)}; {len(pairs)} pairs of places")
        for first, second in sorted(pairs) if args.list else ():
            print(f"  {first}  {second}")


if __name__ == "__main__":
    main()
