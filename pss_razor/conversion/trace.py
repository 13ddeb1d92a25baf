"""A network as a graph of torch.fx, with the shape of every value and what it costs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from pss_razor.core import ConfigError

# Modules of other packages that do their work as one: regularisers, which depend on the mode, and norms with
# another order of axes.
_LEAVES = {"StochasticDepth", "DropPath", "DropBlock2d", "LayerNorm2d", "LayerNorm", "BatchNormAct2d"}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__name__ in _LEAVES or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.GraphModule:
    """The graph of a network, in evaluation mode; modules, parameters and buffers are those of ``model``.

    Raises:
        ConfigError: What it does depends on the values of its input; names the line.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        graph = _Tracer().trace(model)
    except Exception as error:
        where = _place(error)
        raise ConfigError(f"{type(model).__name__} cannot be traced by torch.fx{where}: {error}") from error
    finally:
        for module, mode in training.items():
            module.training = mode
    _restore_dropout(model, graph)
    _unfold_norms(model, graph)
    network = fx.GraphModule(model, graph, type(model).__name__)
    _remove_assertions(network)
    return network


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


def _unfold_norms(model: nn.Module, graph: fx.Graph) -> None:
    """timm's batch norm with dropout and activation inside: one after the other."""
    for node in list(graph.nodes):
        if node.op != "call_module":
            continue
        norm: Any = model.get_submodule(str(node.target))
        if type(norm).__name__ != "BatchNormAct2d" or not isinstance(norm, nn.BatchNorm2d):
            continue
        norm.__class__ = nn.BatchNorm2d
        last = node
        for name in ("drop", "act"):
            with graph.inserting_after(last):
                inner = graph.call_module(f"{node.target}.{name}", (last,))
            last.replace_all_uses_with(inner, lambda user, inner=inner: user is not inner)
            last = inner


def _restore_dropout(model: nn.Module, graph: fx.Graph) -> None:
    """Put modules where a function was called with ``training``, which the trace has fixed."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in (torch.nn.functional.dropout, torch.dropout):
            p = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
            name = f"dropout_{node.name}"
            model.add_module(name, nn.Dropout(p))
            node.op, node.target, node.args, node.kwargs = "call_module", name, node.args[:1], {}


class ShapeReader(fx.Interpreter):
    """Runs a graph on the meta device, and notes of every node the shape of its value and its MACs.

    Attributes:
        shapes: Node name -> shape of a tensor; None for values that are none.
        dtypes: Node name -> type of a tensor.
        macs: Node name -> multiply-accumulates of one image, as ``torch.utils.flop_counter`` counts them.
    """

    def __init__(self, network: fx.GraphModule) -> None:
        meta = copy.deepcopy(network).to("meta").eval()  # batch norm of one image
        super().__init__(meta, garbage_collect_values=True)
        self.shapes: dict[str, tuple[int, ...] | None] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self.macs: dict[str, int] = {}

    def read(self, channels: int, size: int) -> None:
        """Run on one image of so many channels and so many pixels a side."""
        with torch.no_grad():
            self.run(torch.empty(1, channels, size, size, device="meta"))

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
