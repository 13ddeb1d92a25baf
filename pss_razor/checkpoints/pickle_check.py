"""Pickles that need not be trusted are looked through before they are read."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

# What a name may be called with: gets the arguments, returns what stands for the result, and raises if they are bad.
Rule = Callable[[tuple[Any, ...]], Any]

_MAX_INT_BITS = 512
_MAX_KEY_PARTS = 16
_MAX_KEY_LENGTH = 4096
_MAX_NESTING = 64
# A pickle may use one part many times. Written out, it may have so many numbers and letters for each of its bytes.
_EXTENT_PER_BYTE = 64
_LEAST_EXTENT = 2**20


class UnknownNameError(Exception):
    """A pickle asks for a name that is not on the list."""


class Instance:
    """What stands for an object, of which only the kind is known.

    Args:
        kind: Any text; ``"dict"`` for a table.
        build: Rule for its state; None if it can have no state.
        is_complete: Whether it may do without a state.
    """

    def __init__(self, kind: str, build: Rule | None = None, is_complete: bool = True) -> None:
        self.kind = kind
        self.build = build
        self.is_complete = is_complete


class Key(Instance):
    """What stands for an object that may be a key of a table: it takes no time to be compared."""


class Name:
    """What stands for something that a pickle asks for by its name."""

    def __init__(self, name: str, rule: Rule | None) -> None:
        self.name = name
        self.rule = rule


def check_pickle(file: BinaryIO, size: int, names: Mapping[str, Rule | None], persistent: Rule | None = None) -> Any:
    """Walk through a pickle without making any of its objects.

    Reading it afterwards takes time and memory in proportion to its size: names are called only as their rules allow,
    keys of tables are quick to compare, and no number is so long that printing it takes long. Check what was read with
    :func:`check_extent` before doing anything else.

    Args:
        file: At the beginning of the pickle; afterwards at its end.
        size: Bytes of the file.
        names: Name that it may ask for, ``module.name`` -> rule for calling it; None if it may not be called.
        persistent: Rule for the ids of objects outside of the pickle; None if it may have none.

    Returns:
        What stands for the result (numbers, texts, tuples and lists for themselves, an :class:`Instance` for anything
        else).

    Raises:
        UnknownNameError: It asks for another name.
        pickle.UnpicklingError: It is damaged, or does something that none of our files does.
    """
    machine = _Machine(size, names, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.run(opcode.name, argument)
        return machine.result()
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error


def check_extent(value: Any, size: int) -> None:
    """Check that a value, written out, is not much larger than its file: it may have one part many times.

    Args:
        value: Of lists, tuples, sets and tables; anything else counts as one.
        size: Bytes of the file.

    Raises:
        pickle.UnpicklingError: It is larger, nests deeply, or is a part of itself.
    """
    limit = _EXTENT_PER_BYTE * size + _LEAST_EXTENT
    known: dict[int, tuple[int, int]] = {}  # extent and height

    def measure(item: Any, depth: int) -> tuple[int, int]:
        if id(item) not in known:
            extent, height = 1, 0
            for part in _parts(item) if depth < _MAX_NESTING else ():
                if isinstance(part, (str, bytes)):
                    extent += 1 + len(part)
                elif isinstance(part, (dict, list, tuple, set)):
                    part_extent, part_height = measure(part, depth + 1)
                    extent, height = extent + part_extent, max(height, 1 + part_height)
                else:
                    extent += 1
            known[id(item)] = extent, height
        extent, height = known[id(item)]
        if extent > limit or depth + height >= _MAX_NESTING:
            raise pickle.UnpicklingError(
                f"its values are more than {limit} numbers and letters, written out, or nest deeper than "
                f"{_MAX_NESTING} levels, in {size} bytes"
            )
        return extent, height

    measure([value], 0)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
        yield from getattr(value, "__dict__", {}).values()  # an OrderedDict may have attributes
    else:
        yield from value


class _Machine:
    """A pickle's stack and memory, of what stands for its objects."""

    def __init__(self, size: int, names: Mapping[str, Rule | None], persistent: Rule | None) -> None:
        self.size = size
        self.names = names
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}
        self.incomplete: set[Instance] = set()

    def result(self) -> Any:
        (result,) = self.stack
        if self.incomplete:
            raise pickle.UnpicklingError(f"{self.incomplete.pop().kind} without its state")
        return result

    def run(self, operation: str, argument: Any) -> None:
        stack = self.stack
        if operation in _SCALARS:
            if isinstance(argument, int) and argument.bit_length() > _MAX_INT_BITS:
                raise pickle.UnpicklingError(f"an integer of {argument.bit_length()} bits")
            stack.append(argument)
            return
        match operation:
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(operation == "NEWTRUE")
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memory[argument])
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                # Python's reader makes room for as many objects as the number says.
                if argument > self.size:
                    raise pickle.UnpicklingError(f"object number {argument} in {self.size} bytes")
                self.memory[argument] = stack[-1]
            case "MEMOIZE":
                self.memory[len(self.memory)] = stack[-1]
            case "MARK":
                self.marks.append(len(stack))
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self.pop(int(operation[-1]))))
            case "TUPLE":
                stack.append(tuple(self.pop_mark()))
            case "EMPTY_LIST" | "LIST":
                stack.append(self.pop_mark() if operation == "LIST" else [])
            case "APPEND" | "APPENDS":
                items = self.pop_mark() if operation == "APPENDS" else self.pop(1)
                if type(stack[-1]) is not list:
                    raise pickle.UnpicklingError("something is added to what is no list")
                stack[-1] += items
            case "EMPTY_DICT":
                stack.append(Instance("dict"))
            case "DICT":
                check_keys(self.pop_mark()[::2])
                stack.append(Instance("dict"))
            case "SETITEM" | "SETITEMS":
                items = self.pop_mark() if operation == "SETITEMS" else self.pop(2)
                if not isinstance(stack[-1], Instance) or stack[-1].kind != "dict":
                    raise pickle.UnpicklingError("something is entered into what is no table")
                check_keys(items[::2])
            case "GLOBAL" | "STACK_GLOBAL":
                # torch and Python both know the names of Python 2.
                module, name = argument.split(" ") if operation == "GLOBAL" else self.pop(2)
                name = f"{_MODULES.get(module, module)}.{name}"
                if name not in self.names:
                    raise UnknownNameError(name)
                stack.append(Name(name, self.names[name]))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self.pop(2)
                if type(function) is not Name or function.rule is None or type(arguments) is not tuple:
                    raise pickle.UnpicklingError(f"{describe(function)} is called")
                stack.append(self.note(function.rule(arguments)))
            case "BUILD":
                state, target = stack.pop(), stack[-1]
                if not isinstance(target, Instance) or target.build is None:
                    raise pickle.UnpicklingError(f"{describe(target)} is given a state")
                target.build((state,))
                target.is_complete = True
                self.incomplete.discard(target)
            case "BINPERSID":
                if self.persistent is None:
                    raise pickle.UnpicklingError("it asks for something outside of itself")
                stack.append(self.note(self.persistent(tuple(self.pop(1)))))
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise pickle.UnpicklingError(f"it has the operation {operation}")

    def note(self, result: Any) -> Any:
        if isinstance(result, Instance) and not result.is_complete:
            self.incomplete.add(result)
        return result

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
            raise IndexError("the stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items


_SCALARS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_MODULES = {"__builtin__": "builtins"}


def check_keys(keys: Sequence[Any]) -> None:
    """Check that the keys of a table take no longer to compare than to read.

    Raises:
        pickle.UnpicklingError: One is long, or not simple.
    """
    for key in keys:
        for part in key if type(key) is tuple and len(key) <= _MAX_KEY_PARTS else (key,):
            if isinstance(part, (str, bytes)):
                good = len(part) <= _MAX_KEY_LENGTH
            elif isinstance(part, int):
                good = part.bit_length() <= 60  # larger ones can be chosen to have the same hash
            else:
                good = part is None or isinstance(part, (float, Key))
            if not good:
                raise pickle.UnpicklingError(f"a key of a table is {describe(part)}")


def describe(value: Any) -> str:
    """A few words for an error; never what a tuple holds, which may be without end."""
    if isinstance(value, (Name, Instance)):
        return value.name if isinstance(value, Name) else value.kind
    if value is None or isinstance(value, (str, bytes, int, float)):
        return repr(value)[:50]
    return type(value).__name__
