"""A traced program in operations that ONNX has, without tracing it again."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

_ATEN = torch.ops.aten
_MADE_OF_OTHERS = torch._C.DispatchKey.CompositeImplicitAutograd
# Operations made of others that ONNX has as they are.
_IN_ONNX = {
    _ATEN.conv2d.default,
    _ATEN.linear.default,
    _ATEN.max_pool2d.default,
    _ATEN.layer_norm.default,
    _ATEN.flatten.using_ints,
    _ATEN.dropout.default,
    _ATEN.relu6.default,
    _ATEN.upsample_bilinear2d.vec,
    _ATEN.sym_size.int,
}


class LoweredProgram(ExportedProgram):
    """A program whose batch norms, poolings to one pixel and in-place operations are those that ONNX has.

    ``torch.onnx.export`` calls ``run_decompositions``, which traces a program once more and took two thirds of the time
    of an export. This one does so only where operations are left that ONNX lacks.

    Args:
        program: It stays as it is; the weights are shared.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(
            root=program.graph_module,
            graph=_lower(program.graph),
            graph_signature=program.graph_signature,
            state_dict=program.state_dict,
            range_constraints=program.range_constraints,
            module_call_graph=program.module_call_graph,
            constants=program.constants,
            verifiers=program.verifiers,
        )

    def run_decompositions(
        self, decomp_table: Mapping[Any, Callable] | None = None, decompose_custom_triton_ops: bool = False
    ) -> ExportedProgram:
        """The program without operations that are in the table, are made of others, or change a tensor in place."""
        targets = [node.target for node in self.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
        lacking = any(t.has_kernel_for_dispatch_key(_MADE_OF_OTHERS) and t not in _IN_ONNX for t in targets)
        if decomp_table is None or lacking or any(t in decomp_table or t._schema.is_mutable for t in targets):
            return super().run_decompositions(decomp_table, decompose_custom_triton_ops)
        return self


def _lower(graph: Graph) -> Graph:
    lowered = Graph()
    nodes: dict[Node, Node] = {}
    for node in graph.nodes:
        nodes[node] = _lower_node(node, lowered, nodes)
        # The signature of the program refers to nodes by name, and a graph avoids those of Python, such as "input".
        nodes[node].name = node.name
    return lowered


def _lower_node(node: Node, lowered: Graph, nodes: Mapping[Node, Node]) -> Node:
    """Copy a node into the lowered graph, where ``nodes`` are the copies of those before it."""
    args: Any = torch.fx.node.map_arg(node.args, nodes.__getitem__)
    kwargs: Any = torch.fx.node.map_arg(node.kwargs, nodes.__getitem__)
    if node.target is _ATEN.batch_norm.default and not node.args[5] and node.args[3] is not None:
        images, weight, bias, mean, variance, _, momentum, epsilon, _ = args
        norm = lowered.call_function(
            _ATEN._native_batch_norm_legit_no_training.default,
            (images, weight, bias, mean, variance, momentum, epsilon),
        )
        normalised = node.meta["val"]
        norm.meta["val"] = (normalised, normalised.new_empty(0), normalised.new_empty(0))
        target, args, kwargs = operator.getitem, (norm, 0), {}
    elif node.target is _ATEN.adaptive_avg_pool2d.default and list(node.args[1]) == [1, 1]:  # type: ignore[arg-type]
        target, args, kwargs = _ATEN.mean.dim, (args[0], [-1, -2], True), {}
    elif (functional := _functional_form(node, nodes)) is not None:
        target = functional
    else:
        return lowered.node_copy(node, nodes.__getitem__)
    replaced = lowered.call_function(target, args, kwargs)
    replaced.meta = dict(node.meta)
    return replaced


def _functional_form(node: Node, nodes: Mapping[Node, Node]) -> Any:
    """Of an operation that changes a tensor which nothing else uses, the one that makes a new tensor; else None."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    name, changed = target.overloadpacket.__name__, node.args[0]
    functional = getattr(getattr(_ATEN, name.removesuffix("_"), None), target._overloadname, None)
    if functional in (None, target) or not isinstance(changed, Node):
        return None
    tensors = [own.meta["val"] for own in node.all_input_nodes if isinstance(own.meta.get("val"), torch.Tensor)]
    is_same = (
        len(changed.users) == 1
        and _is_new(nodes[changed])
        and len({tensor.dtype for tensor in tensors}) == 1
        and [a.name for a in functional._schema.arguments] == [a.name for a in target._schema.arguments]
    )
    return functional if is_same else None


def _is_new(node: Node) -> bool:
    """Whether a node's result is a tensor of its own, and no view of another."""
    target: Any = node.args[0].target if node.target is operator.getitem else node.target  # type: ignore[union-attr]
    return isinstance(target, torch._ops.OpOverload) and all(own.alias_info is None for own in target._schema.returns)
