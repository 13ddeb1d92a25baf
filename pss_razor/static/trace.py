"""From any CNN, a supernet with its choices fixed included, to a :class:`StaticNet`."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable
from typing import Any

import torch.fx
from torch import Tensor, nn
from torch.fx.proxy import TraceError

from pss_razor.core import ExportError
from pss_razor.static.static_net import FORMAT, StaticNet, show
from pss_razor.static.whitelist import FUNCTIONS, METHODS, MODULE_ATTRIBUTES

# What else there is for a network with other operations.
_OTHERWISE = "of a converted network, the formats onnx and pt2 alone take any"
_FUNCTION_NAMES = {function: name for name, function in FUNCTIONS.items()}

# Classes that compute the same as the torch class in eval mode, by name because they may not be imported here. mmcv's
# wrappers differ for empty tensors under ancient versions of torch only.
_EQUIVALENT: dict[str, type[nn.Module]] = {
    "torch.nn.modules.batchnorm.SyncBatchNorm": nn.BatchNorm2d,
    "mmcv.cnn.bricks.wrappers.Conv2d": nn.Conv2d,
    "mmcv.cnn.bricks.wrappers.Linear": nn.Linear,
    "mmcv.cnn.bricks.wrappers.MaxPool2d": nn.MaxPool2d,
}
# What a subclass may define without changing what the module computes.
_HARMLESS = {"__init__", "__doc__", "__module__", "__annotations__", "__firstlineno__", "__static_attributes__"}


def trace_static(model: nn.Module, resolution: int) -> StaticNet:
    """Exports a model as a static network. The model itself is left as it is.

    On a copy, every submodule that has a method ``to_static_op()`` (dynamic operations of a supernet) is replaced by
    its result, and one forward pass in eval mode is recorded. A recorded module is one whose class is in
    :data:`~pss_razor.static.whitelist.MODULE_ATTRIBUTES`, a subclass of it that defines nothing but ``__init__``, or
    one that is known to compute the same (SyncBatchNorm, mmcv's wrappers). All other modules are looked into, down to
    the operations they call.

    Args:
        model: Called as ``model(images)``, with images (N, 3, H, W); returns logits (N, classes).
        resolution: Height and width of the input, in pixels.

    Returns:
        The network in eval mode, with its own copy of the weights, on the device of the model.

    Raises:
        ExportError: The model uses something that a static network cannot have; the message names it.

    Example:
        >>> net = trace_static(torchvision.models.resnet18(), 224)  # doctest: +SKIP
    """
    tracer = _Tracer()
    graph = tracer.trace(_Root(make_static(copy.deepcopy(model).eval())).eval())
    _remove_dead_nodes(graph, tracer.leaves)

    nodes = [_encode_node(node, tracer.leaves) for node in graph.nodes]
    tensors = {
        f"layers.{node.target}.{name}": tensor.detach().clone(memory_format=torch.contiguous_format)
        for node in graph.nodes
        if node.op == "call_module"
        for name, tensor in tracer.leaves[str(node.target)].state_dict().items()
    }
    return StaticNet.from_tensors({"format": FORMAT, "resolution": resolution, "nodes": nodes}, tensors)


class _Root(nn.Module):
    """Calls the model with images only, so that mmcls's ``data_samples`` and ``mode`` keep their defaults."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


class _Tracer(torch.fx.Tracer):
    """Records whitelisted modules as one node each, and looks into all others."""

    def __init__(self) -> None:
        super().__init__()
        self.leaves: dict[str, nn.Module] = {}

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except (TraceError, TypeError, RuntimeError) as error:
            # These are what Python and torch.fx raise when code looks at the values or the class of a tensor.
            what = _describe(self.path_of_module(m), type(m))
            raise ExportError(f"{what} cannot be traced ({error}); its code may not depend on tensor values") from error

    def path_of_module(self, mod: nn.Module) -> str:
        return super().path_of_module(mod).removeprefix("model.")

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        what = _describe(module_qualified_name, type(m))
        if _torch_class(m) is None:
            is_torch = type(m).__module__.startswith("torch.nn.modules") and not list(m.children())
            if isinstance(m, tuple(MODULE_ATTRIBUTES)) or is_torch:
                names = ", ".join(cls.__name__ for cls in MODULE_ATTRIBUTES)
                raise ExportError(f"{what} cannot be exported; use one of {names} ({_OTHERWISE})")
            return False
        if m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m):
            raise ExportError(f"{what} has hooks or a replaced forward, which cannot be exported; remove them first")
        self.leaves[module_qualified_name] = m
        return True


def make_static(module: nn.Module) -> nn.Module:
    """Replaces, in place, every dynamic module from ``module`` downwards by the result of its ``to_static_op()``."""
    return _make_static(module, {})


def _make_static(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """Replaces each module once, even if it occurs in several places."""
    if module not in done:
        to_static_op = getattr(module, "to_static_op", None)
        static = to_static_op() if callable(to_static_op) else module
        done[module] = done[static] = static
        for name, child in static._modules.items():
            if child is not None:
                static._modules[name] = _make_static(child, done)
    return done[module]


def _torch_class(module: nn.Module) -> type[nn.Module] | None:
    """The whitelisted class that computes the same as ``module``."""
    for cls in type(module).__mro__:
        if cls in MODULE_ATTRIBUTES:
            return cls
        if (equivalent := _EQUIVALENT.get(_type_name(cls))) is not None:
            return equivalent
        if not vars(cls).keys() <= _HARMLESS:
            return None
    return None


def _type_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _describe(path: str, cls: type) -> str:
    return f"module {path} of type {_type_name(cls)}"


def _remove_dead_nodes(graph: torch.fx.Graph, leaves: dict[str, nn.Module]) -> None:
    """Removes nodes without users, except in-place ones, which torch.fx's own elimination would remove too."""
    for node in reversed(graph.nodes):
        if node.users or node.op in ("placeholder", "output"):
            continue
        in_place = any(value is True for value in (*node.args, *node.kwargs.values()))  # relu(x, True)
        if node.op == "call_module":
            in_place = getattr(leaves[str(node.target)], "inplace", False)
        elif node.op == "call_method":
            in_place = str(node.target).endswith("_")
        if not in_place:
            graph.erase_node(node)


def _encode_node(node: torch.fx.Node, leaves: dict[str, nn.Module]) -> dict[str, Any]:
    ops = {"placeholder": "input", "call_module": "module", "call_function": "function", "call_method": "method"}
    # torch.fx's record of the modules that were being called, innermost last
    stack = list(node.meta.get("nn_module_stack", {}).values())
    where = _describe(*stack[-1]) if stack else "the model"
    target: Any = node.target
    args, extra = node.args, {}
    op = ops.get(node.op, node.op)
    if op == "function" and target is getattr and len(args) == 2 and args[1] in ("shape", "ndim"):
        op, target, args = "method", {"shape": "size", "ndim": "dim"}[str(args[1])], args[:1]
    elif op == "function":
        target = _FUNCTION_NAMES.get(target)
    elif op == "method":
        target = target if target in METHODS else None
    elif op == "module":
        module = leaves[str(target)]
        cls = _torch_class(module)
        assert cls is not None, "leaves have a torch class"
        extra = {"type": cls.__name__, "config": {name: _setting(module, name) for name in MODULE_ATTRIBUTES[cls]}}
    elif op == "get_attr":
        name = str(target).removeprefix("model.")
        raise ExportError(
            f"{where} uses the tensor {name} directly; weights must belong to a whitelisted module ({_OTHERWISE})"
        )
    if target is None:
        raise ExportError(
            f"{where} calls {show(node.target)}{tuple(args)!r:.80}, which cannot be exported ({_OTHERWISE})"
        )
    if op == "output" and not isinstance(args[0], torch.fx.Node):
        raise ExportError(f"the model returns {type(args[0]).__name__}; it must return logits as one tensor")
    return {
        "name": node.name,
        "op": op,
        "target": str(target),
        "args": [_encode(argument, where) for argument in args],
        "kwargs": {name: _encode(argument, where) for name, argument in node.kwargs.items()},
        **extra,
    }


def _setting(module: nn.Module, name: str) -> Any:
    """A constructor argument, read back from the module."""
    value = getattr(module, name)
    if name == "bias":  # the argument says whether there is one, the attribute is the tensor
        return value is not None
    if isinstance(value, tuple | list):
        return [_number(item) for item in value]
    return _number(value)


def _number(value: Any) -> Any:
    """Plain Python numbers for those of numpy; everything else as it is."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, int) else value


def _encode(argument: Any, where: str) -> Any:
    match _number(argument):
        case torch.fx.Node():
            return {"node": argument.name}
        case None | bool() | int() | float() | str() as value:
            return value
        case tuple(items):
            return {"tuple": [_encode(item, where) for item in items]}
        case list(items):
            return [_encode(item, where) for item in items]
        case slice():
            return {"slice": [_encode(item, where) for item in (argument.start, argument.stop, argument.step)]}
    raise ExportError(f"{where} passes {show(argument)} of type {_type_name(type(argument))}, which cannot be exported")
