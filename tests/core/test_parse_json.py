from __future__ import annotations

import json
import random
import time

import pytest

from pss_razor.core import MAX_NESTING, parse_json


def _random_value(generator, depth):
    kind = generator.choice("sndl" if depth > 0 else "sn")
    if kind == "s":
        return "".join(generator.choices('[]{}"\\\n,: aé€', k=generator.randrange(8)))
    if kind == "n":
        return generator.choice([None, True, 0, -5, 1.5, 10**30])
    values = [_random_value(generator, depth - 1) for _ in range(generator.randrange(4))]
    if kind == "l":
        return values
    return {_random_value(generator, 0) if i else '"[\\': value for i, value in enumerate(values)}


def _depth(value):
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def test_reads_what_json_reads_and_refuses_what_nests_deeper():
    generator = random.Random(0)
    seen = set()
    for _ in range(2000):
        value = _random_value(generator, 5)
        for _ in range(generator.choice([0, MAX_NESTING - 5, MAX_NESTING - 1, MAX_NESTING])):
            value = [value, "]"] if generator.random() < 0.5 else {'\\"[': value}
        data = json.dumps(value, ensure_ascii=generator.random() < 0.5).encode()
        value = json.loads(data)  # keys are texts now
        deep = _depth(value) > MAX_NESTING
        seen.add(deep)
        if deep:
            with pytest.raises(ValueError, match="nests deeper than 32"):
                parse_json(data)
        else:
            assert parse_json(data) == value
    assert seen == {True, False}


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b'\\"' * 400_000,
        b'"' + b"\\" * 800_001 + b'"',
        b'["' + b'\\\\"' * 400_000,
        b'"' * 800_000,
        b"9" * 800_000,
        b"[" * 800_000,
    ],
    ids=["escaped quotes", "backslashes", "both", "quotes", "digits", "brackets"],
)
def test_time_is_linear(data):
    """A scan by a regular expression took 81 s for a tenth of the first, and grew with its square."""
    start = time.process_time()
    with pytest.raises(ValueError, match=r"line 1|nests|digits"):
        parse_json(data)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_other_encodings(encoding):
    """Half of a character may look like a quotation mark, which would hide brackets."""
    with pytest.raises(ValueError, match=r"codec|line 1"):
        parse_json('["ĢäĢ"]'.encode(encoding) if encoding != "latin-1" else '["ä"]'.encode(encoding))
