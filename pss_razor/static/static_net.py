"""A network whose whole description is data: a list of whitelisted operations and their weights."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pss_razor.core import ExportError, check_nesting
from pss_razor.static.whitelist import FUNCTIONS, METHODS, MODULE_ATTRIBUTES, MODULES

FORMAT = 1
IMAGE_CHANNELS = 3

# Far above any real network. They keep a hostile description from filling the memory: with them, checking and building
# an operation takes some kB and ms at most, whatever its arguments are.
MAX_RESOLUTION = 2048
_MAX_CONFIG_INT = 2**24
_MAX_CONFIG_LENGTH = 8
_MAX_NUMBER = 2**62
_MAX_ELEMENTS = 2**30
_MAX_DIMENSIONS = 16
_MAX_LENGTH = 256  # of a text, and of a list with all that is in it
_MAX_DEPTH = 8
_MAX_NAME_LENGTH = 512
_MAX_NAME_PARTS = 32
# On the meta device, torch takes ten times longer for an interpolation than for any other operation.
_MAX_INTERPOLATIONS = 64

_NODE_KEYS = {"name", "op", "target", "args", "kwargs"}
_CONFIG_STRINGS = {"same", "valid", "zeros", "reflect", "replicate", "circular", "none", "tanh"}


class StaticNet(nn.Module):
    """A CNN with fixed widths and resolution, run from a list of operations. Its code is the same for every network.

    Nothing in the description is executed: names are looked up in :mod:`pss_razor.static.whitelist`. The modules lie
    below :attr:`layers` under the names they had in the source model. Replacing one of them has no effect on
    ``forward``; make another spec instead.

    The constructor gives the modules new random weights; :meth:`from_tensors` is the way to those of a file.

    Args:
        spec: JSON-able description, ``{"format": 1, "resolution": int, "nodes": [...]}``. A node is ``{"name", "op",
            "target", "args", "kwargs"}``, and for a module also ``"type"`` and ``"config"`` (its constructor
            arguments). ``op`` is ``"input"`` (the first node), ``"module"``, ``"function"``, ``"method"`` or
            ``"output"`` (the last). Arguments are numbers, strings, None, lists, ``{"tuple": [...]}``,
            ``{"slice": [start, stop, step]}`` and ``{"node": name}`` for the value of an earlier node.

    Raises:
        ExportError: The description is not of this form, or uses an operation that is not whitelisted.

    Example:
        >>> net = load_subnet("export/flops_150")  # doctest: +SKIP
        >>> logits = net(images)  # doctest: +SKIP
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__()
        self._spec = _checked_spec(spec)
        self._resolution: int = self._spec["resolution"]
        self.layers = nn.Module()
        self._program = _Compiler(self.layers).compile(self._spec["nodes"])
        self._num_parameters = sum(parameter.numel() for parameter in self.parameters())

    @classmethod
    def from_tensors(cls, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> StaticNet:
        """Builds a network around existing weights, after checking that it can run and that they fit.

        The network is built and run without memory (on the meta device) first, so that a description that asks for
        more than ``tensors`` hold is refused before anything is allocated.

        Args:
            spec: As for :class:`StaticNet`.
            tensors: The state dict: parameters and BN statistics. They become the network's own, without a copy.

        Returns:
            The network in eval mode, its parameters without gradients, on the device of ``tensors``.

        Raises:
            ExportError: The description or a tensor is bad; the message names it.
        """
        net = cls.build(spec, lambda net: tensors)
        check_finite(tensors)
        return net

    @classmethod
    def build(cls, spec: Mapping[str, Any], find: Callable[[StaticNet], Mapping[str, Tensor]]) -> StaticNet:
        """As :meth:`from_tensors`, for weights that are known only when the shapes are.

        Args:
            spec: As for :class:`StaticNet`.
            find: Gets the network without memory (on the meta device), and returns its state dict, of which names,
                shapes and dtypes are checked here. Whether numbers are finite is for ``find`` to check.

        Returns:
            As :meth:`from_tensors`.

        Raises:
            ExportError: As :meth:`from_tensors`, and whatever ``find`` raises.
        """
        with torch.device("meta"):
            net = cls(spec).eval().requires_grad_(False)
        tensors = find(net)
        check_tensors(net.state_dict(), tensors)
        net._dry_run()
        net.load_state_dict(dict(tensors), assign=True)
        return net

    @property
    def resolution(self) -> int:
        """Height and width, in pixels, at which the network runs."""
        return self._resolution

    @property
    def spec(self) -> dict[str, Any]:
        """The description this network was built from, to be read only."""
        return self._spec

    @property
    def num_parameters(self) -> int:
        """Number of weights, without the BN statistics."""
        return self._num_parameters

    def forward(self, images: Tensor) -> Tensor:
        """Computes the logits.

        Args:
            images: Normalised images, float (N, 3, H, W). If H or W is not :attr:`resolution`, they are resized to it
                bilinearly with aligned corners, as in training.

        Returns:
            Logits, (N, classes).

        Raises:
            ExportError: ``images`` has another number of dimensions or channels, or is not float.
        """
        images = resize_images(images, self._resolution)
        values = self._program.values.copy()
        values[0] = images
        del images  # a resized batch is freed after its last use, like every other value
        for function, slots, out, dead in self._program.steps:
            values[out] = function(*[values[slot] for slot in slots])
            for slot in dead:
                values[slot] = None
        return values[self._program.result]

    @torch.no_grad()
    def _dry_run(self) -> None:
        """Runs the operations on a batch of two without memory, and refuses what fails or grows beyond all bounds."""
        values = self._program.values.copy()
        values[0] = torch.empty(2, IMAGE_CHANNELS, self._resolution, self._resolution, device="meta")
        interpolations = 0
        for (function, slots, out, _), name in zip(self._program.steps, self._program.names, strict=True):
            arguments = [values[slot] for slot in slots]
            if function is operator.mul and any(isinstance(value, str | list | tuple) for value in arguments):
                raise ExportError(f"node {show(name)} repeats a sequence; multiply tensors and numbers only")
            if function is operator.floordiv and any(isinstance(value, Tensor) for value in arguments):
                raise ExportError(f"node {show(name)} divides a tensor to whole numbers; divide numbers only")
            interpolations += getattr(function, "function", function) is F.interpolate
            if interpolations > _MAX_INTERPOLATIONS:
                raise ExportError(f"there are more than {_MAX_INTERPOLATIONS} interpolations; export the network again")
            if _keeps_shape(function, arguments):
                values[out] = arguments[0]
                continue
            try:
                values[out] = function(*arguments)
            except Exception as error:  # the operations are known to be harmless, but any of their arguments may be bad
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise ExportError(f"node {show(name)} cannot run: {show(reason)}; export the network again") from error
            _check_value(name, values[out])
        result = values[self._program.result]
        if not (isinstance(result, Tensor) and result.dim() == 2 and result.shape[0] == 2):
            found = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else f"type {type(result).__name__}"
            raise ExportError(f"the output for two images has {found}; a static network returns logits (N, classes)")


def resize_images(images: Tensor, resolution: int) -> Tensor:
    """Checks a batch, and resizes it if it has another size: bilinearly with aligned corners, as in training.

    Args:
        images: Normalised images, float (N, 3, H, W).
        resolution: Wanted height and width, in pixels.

    Returns:
        Images, (N, 3, resolution, resolution).

    Raises:
        ExportError: ``images`` has another number of dimensions or channels, or is not float.
    """
    if images.dim() != 4 or images.shape[1] != IMAGE_CHANNELS:
        raise ExportError(f"images have shape {tuple(images.shape)}; pass a batch (N, {IMAGE_CHANNELS}, H, W)")
    if not images.is_floating_point():
        raise ExportError(f"images have dtype {images.dtype}; normalise them to float first")
    size = (resolution, resolution)
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=True)


def check_tensors(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Checks that weights fit a network.

    Args:
        expected: The state dict that is wanted; its tensors need no memory (meta device).
        tensors: The weights.

    Raises:
        ExportError: A tensor is missing, left over, or of another shape or dtype.
    """
    for what, names in (("missing", expected.keys() - tensors.keys()), ("unknown", tensors.keys() - expected.keys())):
        if names:
            raise ExportError(f"{len(names)} tensor(s) {what}, such as {show(min(names))}; export the network again")
    for name, wanted in expected.items():
        tensor = tensors[name]
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise ExportError(
                f"tensor {show(name)} is {tensor.dtype} {tuple(tensor.shape)}, but the network needs "
                f"{wanted.dtype} {tuple(wanted.shape)}; export the network again"
            )


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Checks that weights are numbers.

    Raises:
        ExportError: One has a value that is NaN or infinite.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ExportError(f"tensor {show(name)} has NaN or infinite values; train or calibrate the network again")


def show(value: object) -> str:
    """Quotes a value from a file for an error message, escaped and cut to a line."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


class _Step(NamedTuple):
    """One call: values[out] = function(*values[slots]); afterwards the values in ``dead`` are not needed any more."""

    function: Callable[..., Any]
    slots: tuple[int, ...]
    out: int
    dead: tuple[int, ...]


class _Program(NamedTuple):
    """What ``forward`` runs. ``values`` holds the constants and room for all results; the images go to slot 0."""

    values: list[Any]
    steps: list[_Step]
    names: list[str]
    result: int


class _Call:
    """Calls a function with its last arguments by keyword. A class, so that deepcopy follows the module inside."""

    def __init__(self, function: Callable[..., Any], keywords: tuple[str, ...]) -> None:
        self.function = function
        self.keywords = keywords

    def __call__(self, *args: Any) -> Any:
        first = len(args) - len(self.keywords)
        return self.function(*args[:first], **dict(zip(self.keywords, args[first:], strict=True)))


def _keeps_shape(function: Callable[..., Any], arguments: Sequence[Any]) -> bool:
    """Whether a call is known to work and to return a value like its first argument, without running it.

    On the meta device torch runs these in Python; without this shortcut they take most of the time of loading.
    """
    match function, arguments:
        case nn.BatchNorm2d(), [Tensor(dtype=torch.float32, shape=[_, channels, _, _])]:
            return channels == function.num_features
        case nn.ReLU() | nn.ReLU6() | nn.SiLU() | nn.Hardswish() | nn.Hardsigmoid() | nn.Sigmoid(), [
            Tensor(dtype=torch.float32)
        ]:
            return True
        case _Call(keywords=("inplace",)), [Tensor(dtype=torch.float32), bool()]:
            return function.function in _ACTIVATIONS_IN_PLACE
        case _, [Tensor(dtype=torch.float32)]:
            return function in _ACTIVATIONS
        case _, [Tensor(dtype=torch.float32) as first, Tensor(dtype=torch.float32) as second]:
            return function in _ARITHMETIC and first.shape == second.shape
    return False


_ACTIVATIONS_IN_PLACE: set[Callable[..., Any]] = {F.relu, F.relu6, F.silu, F.hardswish, F.hardsigmoid}
_ACTIVATIONS: set[Callable[..., Any]] = {
    *_ACTIVATIONS_IN_PLACE,
    *(torch.relu, torch.sigmoid, torch.tanh, F.sigmoid, F.tanh, F.gelu, F.elu, F.leaky_relu, F.hardtanh),
    *(Tensor.relu, Tensor.relu_, Tensor.sigmoid, Tensor.tanh),
}
_ARITHMETIC: set[Callable[..., Any]] = {
    *(operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div),
    *(Tensor.add, Tensor.add_, Tensor.sub, Tensor.mul, Tensor.mul_, Tensor.div),
}


def _make_list(*items: Any) -> list[Any]:
    return list(items)


def _make_tuple(*items: Any) -> tuple[Any, ...]:
    return items


class _Compiler:
    """Turns nodes into calls on numbered slots, and registers the modules they use.

    Every argument becomes a slot, constants included, so that running a node needs no look at what its arguments are.
    """

    def __init__(self, layers: nn.Module) -> None:
        self.layers = layers
        self.modules: dict[str, tuple[str, dict[str, Any], nn.Module]] = {}
        self.slots: dict[str, int] = {}
        self.values: list[Any] = []
        self.constants: set[int] = set()
        self.calls: list[tuple[Callable[..., Any], tuple[int, ...], int]] = []
        self.names: list[str] = []
        self.node = ""
        self.operands = 0

    def compile(self, nodes: Sequence[Any]) -> _Program:
        result: int | None = None
        for position, node in enumerate(nodes):
            self.node = _checked_node(node, position)
            self.operands = 0
            if self.node in self.slots:
                self.fail("has a name that another node has already", self.node)
            op = node["op"]
            if (op == "input") != (position == 0) or (op == "output") != (position == len(nodes) - 1):
                self.fail("is out of place; the input is the first node, the output the last, and both are single", op)
            if op == "input":
                self.slots[self.node] = self.slot(None)
            elif op == "output":
                if len(node["args"]) != 1 or not _is_reference(node["args"][0]) or node["kwargs"]:
                    self.fail("does not return exactly one value", node["args"])
                result = self.operand(node["args"][0])
            else:
                function = self.function(node)
                slots = [self.operand(argument) for argument in node["args"]]
                slots += [self.operand(argument) for argument in node["kwargs"].values()]
                if node["kwargs"]:
                    function = _Call(function, tuple(node["kwargs"]))
                self.slots[self.node] = self.call(function, slots)
        assert result is not None, "the last node is the output"
        return _Program(self.values, self.steps(result), self.names, result)

    def fail(self, problem: str, value: object) -> NoReturn:
        raise ExportError(f"node {show(self.node)} {problem}: {show(value)}; export the network again")

    def slot(self, value: Any) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def call(self, function: Callable[..., Any], slots: Sequence[int]) -> int:
        out = self.slot(None)
        self.calls.append((function, tuple(slots), out))
        self.names.append(self.node)
        return out

    def function(self, node: Mapping[str, Any]) -> Callable[..., Any]:
        target = node["target"]
        match node["op"]:
            case "module":
                return self.module(target, node["type"], node["config"])
            case "function" if target in FUNCTIONS:
                return FUNCTIONS[target]
            case "method" if target in METHODS:
                return METHODS[target]
        self.fail(f"uses a {node['op']} that is not whitelisted", target)

    def operand(self, argument: Any, depth: int = 0) -> int:
        """Slot of an argument; lists and tuples of constants are made here, those of node values at each run."""
        if depth > _MAX_DEPTH:
            self.fail("has an argument that is nested too deeply", f"more than {_MAX_DEPTH} levels")
        self.operands += 1
        if self.operands > _MAX_LENGTH or (isinstance(argument, str) and len(argument) > _MAX_LENGTH):
            self.fail("has too much of arguments", f"more than {_MAX_LENGTH}")
        make: Callable[..., Any]
        match argument:
            case None | bool() | int() | float() | str():
                slot = self.slot(argument)
                self.constants.add(slot)
                return slot
            case {"node": name} if _is_reference(argument):
                if name not in self.slots:
                    self.fail("refers to a node that is not before it", name)
                return self.slots[name]
            case list(items):
                make = _make_list
            case {"tuple": list(items), **rest} if not rest:
                make = _make_tuple
            case {"slice": [_, _, _] as items, **rest} if not rest:
                make = slice
            case _:
                self.fail("has an argument of unknown form", argument)
        slots = [self.operand(item, depth + 1) for item in items]
        if self.constants.issuperset(slots):
            slot = self.slot(make(*[self.values[item] for item in slots]))
            self.constants.add(slot)
            return slot
        return self.call(make, slots)

    def module(self, target: str, type_name: str, config: Mapping[str, Any]) -> nn.Module:
        """The module called ``target``, registered on its first use."""
        if target in self.modules:
            *described, module = self.modules[target]
            if described != [type_name, config]:
                self.fail("describes a module differently than an earlier node", target)
            return module
        if type_name not in MODULES:
            self.fail("uses a module type that is not whitelisted", type_name)
        module = self.build(MODULES[type_name], config)
        *parents, name = target.split(".")
        if len(parents) >= _MAX_NAME_PARTS:
            self.fail("has a module name of too many parts", target)
        parent = self.layers
        try:
            for part in parents:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            if type(parent) is not nn.Module or name in parent._modules:
                self.fail("has a module name that is taken", target)
            parent.add_module(name, module)
        except (KeyError, AttributeError):  # how torch refuses an empty name or one like "forward"
            self.fail("has a module name that torch does not allow", target)
        self.modules[target] = (type_name, dict(config), module)
        return module

    def build(self, cls: type[nn.Module], config: Mapping[str, Any]) -> nn.Module:
        if config.keys() != set(MODULE_ATTRIBUTES[cls]):
            self.fail(f"does not have the settings of {cls.__name__}, {MODULE_ATTRIBUTES[cls]}", sorted(config))
        arguments = {}
        for key, value in config.items():
            items = value if isinstance(value, list) else [value]
            if len(items) > _MAX_CONFIG_LENGTH or not all(_is_setting(item) for item in items):
                self.fail(f"has a bad value for {key} of {cls.__name__}", value)
            arguments[key] = tuple(value) if isinstance(value, list) else value
        try:
            return cls(**arguments)
        except (TypeError, ValueError, RuntimeError, OverflowError, ArithmeticError) as error:
            raise ExportError(f"node {show(self.node)} cannot build {cls.__name__}: {show(str(error))}") from error

    def steps(self, result: int) -> list[_Step]:
        """Adds to each call the values that are used there for the last time."""
        seen = {result, *self.constants}
        steps = []
        for function, slots, out in reversed(self.calls):
            dead = {slot for slot in (*slots, out) if slot not in seen}
            seen |= dead
            steps.append(_Step(function, slots, out, tuple(sorted(dead))))
        return steps[::-1]


def _checked_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a description that is surely JSON, with its outermost level checked."""
    try:
        check_nesting(spec)
        copy = json.loads(json.dumps(spec, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ExportError(f"the description of the network is not JSON: {show(str(error))}") from error
    if not isinstance(copy, dict) or copy.keys() != {"format", "resolution", "nodes"}:
        keys = sorted(copy) if isinstance(copy, dict) else copy
        raise ExportError(f"not a static network: it has {show(keys)} instead of format, resolution and nodes")
    if type(copy["format"]) is not int or copy["format"] != FORMAT:
        raise ExportError(f"format {show(copy['format'])} is unknown, {FORMAT} is supported; upgrade pss_razor")
    resolution = copy["resolution"]
    if type(resolution) is not int or not 1 <= resolution <= MAX_RESOLUTION:
        raise ExportError(f"resolution is {show(resolution)}; it must be an integer from 1 to {MAX_RESOLUTION}")
    if not isinstance(copy["nodes"], list) or len(copy["nodes"]) < 2:
        raise ExportError("nodes must be a list with an input and an output; export the network again")
    return copy


def _checked_node(node: Any, position: int) -> str:
    """The name of a node whose keys and types are right."""
    is_module = isinstance(node, dict) and node.get("op") == "module"
    types = {"name": str, "op": str, "target": str, "args": list, "kwargs": dict, "type": str, "config": dict}
    wanted = set(types) if is_module else _NODE_KEYS
    if not isinstance(node, dict) or node.keys() != wanted:
        found = sorted(node) if isinstance(node, dict) else node
        raise ExportError(f"node {position} has {show(found)} instead of {sorted(wanted)}; export the network again")
    for key in wanted:
        if not isinstance(node[key], types[key]):
            raise ExportError(f"node {position} has a bad {key}: {show(node[key])}; export the network again")
        if isinstance(node[key], str) and len(node[key]) > _MAX_NAME_LENGTH:
            raise ExportError(f"node {position} has a {key} of {len(node[key])} characters; export the network again")
    return node["name"]


def _is_reference(argument: Any) -> bool:
    return isinstance(argument, dict) and argument.keys() == {"node"} and isinstance(argument["node"], str)


def _is_setting(value: Any) -> bool:
    if isinstance(value, str):
        return value in _CONFIG_STRINGS
    return value is None or (isinstance(value, int | float) and abs(value) <= _MAX_CONFIG_INT)


def _check_value(name: str, value: Any) -> None:
    """Refuses values that no real network has between its layers."""
    # A list may hold another many times, so that looking at all that is in it could take forever.
    level, count = [value], 1
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, list | tuple):
                count += len(item)
                if count > _MAX_LENGTH:
                    _refuse_value(name, value)
                inner += item
            elif not _is_plausible(item):
                _refuse_value(name, item)
        if not inner:
            return
        level = inner
    _refuse_value(name, value)


def _is_plausible(value: Any) -> bool:
    match value:
        case Tensor():
            return value.numel() <= _MAX_ELEMENTS and value.dim() <= _MAX_DIMENSIONS
        case str():
            return len(value) <= _MAX_LENGTH
        case bool() | int() | float():
            return abs(value) <= _MAX_NUMBER
    return value is None or isinstance(value, slice)


def _refuse_value(name: str, value: Any) -> NoReturn:
    raise ExportError(f"node {show(name)} makes a value of absurd size or type {type(value).__name__}")
