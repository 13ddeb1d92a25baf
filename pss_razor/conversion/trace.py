"""A network as a graph of torch.fx, with the shape of every value and what it costs."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pss_razor.conversion.layers import BiasedLinear, ComputedConv2d
from pss_razor.core import ConfigError

# Regularisers of other packages, which depend on the mode.
REGULARISER_NAMES = {"StochasticDepth", "DropPath", "DropBlock2d"}


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run the body in evaluation mode, then restore the mode of every module."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def trace(model: nn.Module, images: Tensor, others: Sequence[Sequence[int]] = ()) -> fx.GraphModule:
    """The graph of a network, in evaluation mode; modules, parameters and buffers are those of ``model``.

    What a network decides by its images' sizes is decided once. A module that cannot be traced is called as one.

    Args:
        model: The network, changed.
        images: (N, C, H, W) like those it is called with.
        others: Other shapes, for which it must decide the same.

    Raises:
        ConfigError: What it does depends on the values of its input, and names the line; or it is not the same for
            another shape.
    """
    whole: set[str] = set()
    with evaluating(model):
        blank = _on_meta(model)
        while True:  # each time, one module more is left whole
            tracer = _Tracer(model, images, whole)
            try:
                graph = tracer.trace(model)
                break
            except Exception as error:
                if tracer.failed in whole | {None}:
                    where = _place(error)
                    raise ConfigError(f"{type(model).__name__} cannot be traced by torch.fx{where}: {error}") from error
                whole.add(str(tracer.failed))
        for shape in others:
            _compare(model, graph, blank, shape, whole)
    _call_modules(model, graph)
    _restore_dropout(model, graph)
    network = fx.GraphModule(model, graph, type(model).__name__)
    _remove_assertions(network)
    return network


def _on_meta(model: Any) -> Any:
    """A copy on the meta device, for which no tensor is copied."""
    memo: dict[int, Any] = {id(own): nn.Parameter(own.detach().to("meta"), False) for own in model.parameters()}
    memo |= {id(own): own.to("meta") for own in model.buffers()}
    return copy.deepcopy(model, memo)


def _compare(model: nn.Module, graph: fx.Graph, blank: nn.Module, shape: Sequence[int], whole: set[str]) -> None:
    """Check that the graph is the same for images of another shape."""
    before = set(vars(blank))
    try:
        other = _Tracer(blank, torch.empty(*shape, device="meta"), whole).trace(blank)
    except Exception as error:
        raise ConfigError(f"the network does not run on images of {shape[-1]} pixels: {error}") from error
    for own, new in itertools.zip_longest(graph.nodes, other.nodes):
        is_same = own is not None and new is not None and own.format_node() == new.format_node()
        if is_same and own.op == "get_attr" and own.target in vars(model):  # a constant that the trace has made
            first, second = getattr(model, own.target), getattr(blank, own.target)
            is_same = first.shape == second.shape and (second.is_meta or torch.equal(first.cpu(), second))
        if not is_same:
            raise ConfigError(
                f"{type(model).__name__} is another network for images of the shape {tuple(shape)}, at "
                f"{(own or new).format_node()}: it decides by their number or size"
            )
    for name in set(vars(blank)) - before:
        delattr(blank, name)


class _Sized:
    """What a traced value is asked for by code that decides on sizes."""

    tracer: Any
    node: Any

    def __len__(self) -> int:
        return len(self.tracer.values[self.node])

    def __index__(self) -> int:
        return self.tracer.number(self.node).__index__()

    def __int__(self) -> int:
        return int(self.tracer.number(self.node))

    def __float__(self) -> float:
        return float(self.tracer.number(self.node))

    def __getattr__(self, name: str) -> Any:
        return _SizedAttribute(self, name)  # type: ignore[arg-type]


class _SizedProxy(_Sized, fx.Proxy):
    pass


class _SizedAttribute(_Sized, fx.proxy.Attribute):
    pass


class _Tracer(fx.Tracer):
    """Knows every value on the meta device, so that a network may decide on sizes.

    Args:
        model: The network.
        images: What it is called with.
        whole: Modules that are not traced into.
    """

    def __init__(self, model: nn.Module, images: Tensor, whole: set[str]) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self.meta = _on_meta(model)
        self.images = torch.empty_like(images, device="meta")
        self.whole = whole
        self.values: dict[fx.Node, Any] = {}
        self.failed: str | None = None
        self._is_computing = False

    def number(self, node: fx.Node) -> Any:
        """The value of a node, if it is a number."""
        value = self.values[node]
        if isinstance(value, Tensor):
            raise fx.proxy.TraceError(f"it depends on the values of {node.name}")
        return value

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """See ``fx.Tracer``: the images are the only input, other arguments have their defaults."""
        return root_fn, [self.root, self.create_proxy("placeholder", "images", (), {})]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """See ``fx.Tracer``."""
        is_known = type(m).__name__ in REGULARISER_NAMES or module_qualified_name in self.whole
        return is_known or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """See ``fx.Tracer``."""
        if self._is_computing:
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """See ``fx.Tracer``."""
        return attr_val if self._is_computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """See ``fx.Tracer``."""
        return _SizedProxy(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """See ``fx.Tracer``."""
        return bool(self.number(obj.node))

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """See ``fx.Tracer``."""
        own: Any = obj
        return iter([own[index] for index in range(len(self.values[obj.node]))])

    def create_proxy(self, kind: str, *args: Any, **kwargs: Any) -> fx.Proxy:
        """See ``fx.Tracer``."""
        proxy = super().create_proxy(kind, *args, **kwargs)
        self._is_computing = True
        try:
            with torch.no_grad():
                self.values[proxy.node] = self._compute(proxy.node)
        finally:
            self._is_computing = False
        return proxy

    def _compute(self, node: fx.Node) -> Any:
        target: Any = node.target
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda own: self.values[own])
        match node.op:
            case "placeholder":
                return self.images
            case "get_attr":
                owner, _, last = target.rpartition(".")
                is_own = hasattr(self.meta.get_submodule(owner), last)  # else a constant that the trace has made
                return getattr(self.meta.get_submodule(owner) if is_own else self.root, last).to("meta")
            case "call_function":
                return target(*args, **kwargs)
            case "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            case "call_module":
                return self.meta.get_submodule(target)(*args, **kwargs)
        return None


def _place(error: BaseException) -> str:
    """The innermost line of the traceback that is not torch's."""
    frames = []
    trace_back = error.__traceback__
    while trace_back is not None:
        frames.append((trace_back.tb_frame.f_code.co_filename, trace_back.tb_lineno))
        trace_back = trace_back.tb_next
    own = [frame for frame in frames if "/torch/" not in frame[0] and "pss_razor/conversion" not in frame[0]]
    return f" ({own[-1][0]}, line {own[-1][1]})" if own else ""


def _remove_assertions(network: fx.GraphModule) -> None:
    """Assertions on sizes of the full network compute nothing, but use values that a block could else have alone."""
    for node in list(network.graph.nodes):
        if node.op == "call_function" and node.target is torch._assert:
            network.graph.erase_node(node)
    network.graph.eliminate_dead_code()
    network.recompile()


# Function -> class of torch that calls it with its own tensors, and the function's arguments.
_CALLS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    F.linear: (nn.Linear, ("input", "weight", "bias")),
    F.conv2d: (nn.Conv2d, ("input", "weight", "bias", "stride", "padding", "dilation", "groups")),
    F.layer_norm: (nn.LayerNorm, ("input", "normalized_shape", "weight", "bias", "eps")),
    F.group_norm: (nn.GroupNorm, ("input", "num_groups", "weight", "bias", "eps")),
    F.batch_norm: (
        nn.BatchNorm2d,
        ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    ),
}
_TENSORS = ("weight", "bias", "running_mean", "running_var")
_DEFAULTS = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "eps": 1e-5}


def _call_modules(model: nn.Module, graph: fx.Graph) -> None:
    """Where a subclass of a layer of torch does what that does, and more around it, call the layer itself.

    timm's layers are such: a batch norm with an activation after it, a layer norm with other axes before and after.
    """
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _CALLS:
            continue
        layer, names = _CALLS[node.target]
        arguments = _DEFAULTS | dict(zip(names, node.args, strict=False)) | node.kwargs
        raw = _attributes(arguments.get("weight"))
        owner = raw[0].rpartition(".")[0] if raw else ""
        module: Any = model.get_submodule(owner)
        others = {name for name in names if not _is_own(arguments.get(name), module, owner, name)}
        called: tuple[Any, ...] = (arguments["input"],)
        if raw and isinstance(module, layer) and not others:
            module.__class__ = layer
        elif raw and isinstance(module, nn.Linear) and others == {"bias"} and module.bias is None:
            module.__class__ = BiasedLinear
            called = (arguments["input"], arguments["bias"])
        elif (
            isinstance(module, nn.Conv2d)
            and others == {"weight"}
            and _compute_weight(module, owner, arguments["weight"], raw)
        ):
            module.__class__ = ComputedConv2d
        else:
            continue
        node.op, node.target, node.args, node.kwargs = "call_module", owner, called, {}


def _attributes(value: Any) -> list[str]:
    """Names of the parameters that a value is computed of, if it is of one module's alone."""
    found: dict[str, None] = {}
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, fx.Node) or node.op in ("placeholder", "call_module"):
            return []
        if node.op == "get_attr":
            found[str(node.target)] = None
        waiting.extend(node.all_input_nodes)
    return list(found) if len({name.rpartition(".")[0] for name in found}) == 1 else []


def _compute_weight(conv: Any, owner: str, weight: fx.Node, raw: list[str]) -> bool:
    """Give a conv what its weight is computed with, if the weight's channels are those of its parameters."""
    names = tuple(name.removeprefix(f"{owner}.") for name in raw)
    tensors = [getattr(conv, name) for name in names]
    if "weight" not in names or any(tensor.dim() and len(tensor) not in (1, conv.out_channels) for tensor in tensors):
        return False
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    inputs = {name: graph.placeholder(own.replace(".", "_")) for name, own in zip(raw, names, strict=True)}
    for node in weight.graph.nodes:
        if node.op == "get_attr" and node.target in inputs:
            copies[node] = inputs[str(node.target)]
        elif node.op.startswith("call") and all(own in copies for own in node.all_input_nodes):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[weight])
    graph.eliminate_dead_code()
    compute = fx.GraphModule(nn.Module(), graph)
    generator = torch.Generator().manual_seed(0)
    values = [torch.rand(tensor.shape, generator=generator) for tensor in tensors]
    outputs, inputs_order = (torch.randperm(n, generator=generator) for n in conv.weight.shape[:2])
    inputs_order = inputs_order if conv.groups == 1 else torch.arange(conv.weight.shape[1])
    moved = [value[outputs] if value.dim() and len(value) > 1 else value for value in values]
    place = names.index("weight")
    moved[place] = moved[place][:, inputs_order]
    if not torch.allclose(compute(*moved), compute(*values)[outputs][:, inputs_order], rtol=1e-4, atol=1e-6):
        return False
    conv.__dict__.update(compute=compute, names=names)
    return True


def _is_own(value: Any, module: Any, owner: str, name: str) -> bool:
    """Whether a function's argument is what a module would give it."""
    if name in ("training", "momentum"):
        return True
    if name == "input" or not hasattr(module, name):
        return isinstance(value, fx.Node) and name == "input"
    own = getattr(module, name)
    if name in _TENSORS:
        return value is None if own is None else getattr(value, "target", None) == f"{owner}.{name}"
    if isinstance(own, tuple):
        value = tuple(value) if isinstance(value, list | tuple) else (value,) * len(own)
    return bool(value == own)


def _restore_dropout(model: nn.Module, graph: fx.Graph) -> None:
    """Put modules where a function was called with ``training``, which the trace has fixed."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in (F.dropout, torch.dropout):
            p = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
            name = f"dropout_{node.name}"
            model.add_module(name, nn.Dropout(p))
            node.op, node.target, node.args, node.kwargs = "call_module", name, node.args[:1], {}


class ShapeReader(fx.Interpreter):
    """Runs a graph on the meta device, and notes of every node the shape of its value and its MACs.

    Attributes:
        shapes: Node name -> shape of a tensor; None for values that are none.
        dtypes: Node name -> type of a tensor.
        macs: Node name -> multiply-accumulates, as ``torch.utils.flop_counter`` counts them.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(_on_meta(network).eval(), garbage_collect_values=True)  # batch norm of one image
        self.shapes: dict[str, tuple[int, ...] | None] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self.macs: dict[str, int] = {}

    def read(self, *shape: int) -> None:
        """Run on images of this shape, (N, C, H, W)."""
        with torch.no_grad():
            self.run(torch.empty(shape, device="meta"))

    def run_node(self, n: fx.Node) -> Any:
        """See ``Interpreter``."""
        if n.op in ("placeholder", "get_attr", "output"):
            value = super().run_node(n)
        else:
            with FlopCounterMode(display=False) as counter:
                value = super().run_node(n)
            self.macs[n.name] = counter.get_total_flops() // 2
        self.shapes[n.name] = tuple(value.shape) if isinstance(value, Tensor) else None
        if isinstance(value, Tensor):
            self.dtypes[n.name] = value.dtype
        return value
