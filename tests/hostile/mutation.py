"""Content that a hostile or damaged file may have: good content, changed in its structure by a seeded generator."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import pickletools
import random
from typing import Any

_MAX_REPEATS = 20_000
_MAX_LENGTH = 1_000_000

NUMBERS = [0, -1, 1, 2, 7, 255, 2**24, 2**31, 2**62, 2**64, 10**30, 10**310, -(2**63), 0.5, 1e-300, 1e308, -0.0]
NUMBERS += [float("inf"), float("nan")]
TEXTS = [
    "",
    "x",
    "\0",
    "../x",
    "/etc/passwd",
    "__class__",
    "os.system",
    ".",
    "a.",
    "output",
    "\U0001f600",
    "\ud800",
    "nan",
]


def scalar(generator: random.Random) -> Any:
    kind = generator.randrange(6)
    if kind == 0:
        return generator.choice([None, True, False, [], {}])
    if kind in (1, 2):
        return generator.choice(NUMBERS)
    if kind == 3:
        return generator.choice("xa.%\u20ac/") * generator.choice([3, 300, 3000, 100_000])
    if kind == 4:
        return ".".join("ab" * generator.choice([3, 30, 3000]))
    return generator.choice(TEXTS)


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a tree of tables and lists."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending and len(found) < 20_000:
        item = pending.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else []
        for key in keys:
            found.append((item, key))
            pending.append(item[key])
    return found


def is_longer(value: Any, length: int) -> bool:
    """Whether a value has more than so many characters of JSON; parts that are repeated are one object."""
    for part in json.JSONEncoder().iterencode(value):
        length -= len(part)
        if length < 0:
            return True
    return False


def mutate(value: Any, generator: random.Random) -> Any:
    """A changed copy: other types, sizes, numbers, repeats, parts of it in other places."""
    root = [copy.deepcopy(value)]
    for _ in range(generator.choice([1, 1, 1, 2, 3, 5])):
        everywhere = places(root)
        container, key = generator.choice(everywhere)
        kind = generator.randrange(9)
        if kind <= 2:
            container[key] = scalar(generator)
        elif kind == 3:
            other, name = generator.choice(everywhere)
            container[key] = copy.deepcopy(other[name])
        elif kind == 4:
            for _ in range(generator.choice([1, 5, 40, 200])):
                container[key] = generator.choice([[container[key]], {"x": container[key]}])
        elif kind == 5 and isinstance(container[key], list):
            times = generator.choice([0, 2, 50, _MAX_REPEATS])
            if not is_longer(container[key], _MAX_LENGTH // max(times, 1)):
                container[key] = container[key] * times
        elif kind == 5 and isinstance(container[key], dict):
            container[key] |= {f"more{i}": scalar(generator) for i in range(generator.choice([1, 50]))}
        elif kind == 6 and container is not root:
            if isinstance(container, dict):
                container[generator.choice(["x", *container])] = container.pop(key)
            else:
                container.insert(generator.randrange(len(container) + 1), container.pop(key))
        elif kind == 7 and container is not root:
            del container[key]
        elif isinstance(container[key], (int, float)):
            container[key] = generator.choice(
                [container[key] + 1, container[key] - 1, container[key] * 1000, -container[key]]
            )
        if is_longer(root, _MAX_LENGTH):
            return value
    return root[0]


def mutate_text(text: str, generator: random.Random) -> bytes:
    """JSON as bytes, now and then changed as no value could be."""
    data = text.encode(errors="surrogatepass")
    kind = generator.randrange(14)
    at = generator.randrange(len(data) + 1)
    insert = {
        0: b"9" * generator.choice([500, 5000, 200_000]),
        1: b"[" * generator.choice([20, 40, 100_000]),
        2: b'"' + b'\\"' * generator.choice([10, 100_000]),
        3: b"\\" * generator.choice([1, 100_001]),
        4: b'{"a":1,"a":[' * generator.choice([1, 1000]),
        5: b"\xff\x00",
    }
    if kind in insert:
        return data[:at] + insert[kind] + data[at:]
    return text.encode("utf-16", errors="surrogatepass") if kind == 6 else data[:at] if kind == 7 else data


# Pickles: their operations are changed one by one.


def operations(data: bytes) -> list[bytes]:
    starts = [position for _, _, position in pickletools.genops(data)] + [len(data)]
    return [data[a:b] for a, b in itertools.pairwise(starts)]


def mutate_pickle(data: bytes, generator: random.Random, names: list[str]) -> bytes:
    """A pickle with operations left out, repeated, exchanged, and others put in, mostly well formed."""
    found = operations(data)
    for _ in range(generator.choice([1, 1, 2, 3, 6])):
        at = generator.randrange(1, len(found))
        kind = generator.randrange(8)
        if kind == 0:
            del found[at : at + generator.choice([1, 1, 2, 10])]
        elif kind == 1:
            found[at:at] = found[at : at + generator.choice([1, 3, 30])] * generator.choice([1, 2, 2000])
        elif kind == 2:
            other = generator.randrange(1, len(found))
            found[at], found[other] = found[other], found[at]
        elif kind == 3:
            found[at:at] = call(generator, names)
        elif kind == 4:
            found[at:at] = [b")", *[b"q\x01h\x01\x86"] * generator.choice([3, 30, 3000]), b"0"][
                : generator.choice([-1, 99_999])
            ]
        elif kind == 5:
            found[at] = number(generator)
        elif kind == 6:
            found[at] = text(generator)
        else:
            found[at:at] = [
                generator.choice(
                    [b"(", b"t", b"]", b"}", b"a", b"e", b"s", b"u", b"R", b"b", b"Q", b"\x81", b"2", b"0"]
                )
            ]
        if not found or sum(map(len, found)) > _MAX_LENGTH:
            return data
        if len(found) == 1:
            break
    return b"".join(found)


def number(generator: random.Random) -> bytes:
    value = generator.choice([0, 1, -1, 2**31 - 1, 2**40, 2**61 - 1, 2**70, 2**600, 2**1500])
    return pickle.dumps(value, protocol=2)[2:-1]


def text(generator: random.Random) -> bytes:
    value = scalar(generator)
    return pickle.dumps(value if isinstance(value, (str, float)) else "x" * 5, protocol=2)[2:-1].split(b"q\x00")[0]


def call(generator: random.Random, names: list[str]) -> list[bytes]:
    """A name, and mostly a call of it with numbers, texts, or what is in memory."""
    module, _, name = generator.choice(names).rpartition(".")
    made = [b"c" + f"{module}\n{name}\n".encode(), b"("]
    for _ in range(generator.randrange(5)):
        made.append(
            generator.choice([number(generator), text(generator), b")", b"]", b"h" + bytes([generator.randrange(40)])])
        )
    made += [b"t", generator.choice([b"R", b"R", b"\x81", b"0"])]
    if generator.random() < 0.5:
        made += [generator.choice([b"}", b"N", b")", b"K\x01K\x02\x86"]), b"b"]
    return made
