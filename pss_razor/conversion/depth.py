"""Runs of residual blocks, of which the last ones can be skipped."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass

import torch
from torch import fx, nn

from pss_razor.conversion.layers import ResidualBlock

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6)
_ACTIVATION_FUNCTIONS = (torch.relu, torch.nn.functional.relu, torch.nn.functional.relu6)


@dataclass(frozen=True)
class Block:
    """A block ``x + f(x)``, with the ReLU after it where there is one: then ``x`` has gone through one, too.

    Args:
        start: ``x``.
        end: Its output.
        nodes: What computes it, in running order, ``end`` among them.
    """

    start: fx.Node
    end: fx.Node
    nodes: tuple[fx.Node, ...]


def find_runs(network: fx.GraphModule) -> list[list[Block]]:
    """Blocks that follow each other directly, in running order.

    A block inside of another is no block, nor one with a layer that runs outside of it, too.
    """
    order = {node: number for number, node in enumerate(network.graph.nodes)}
    modules = dict(network.named_modules())
    blocks = [block for node in network.graph.nodes if (block := _block(node, order, modules)) is not None]
    learned = {name for name, module in modules.items() if any(True for _ in module.parameters())}
    calls = Counter(node.target for node in network.graph.nodes if node.op == "call_module")

    def is_own(block: Block) -> bool:
        own = Counter(node.target for node in block.nodes if node.op == "call_module" and node.target in learned)
        return all(calls[target] == count for target, count in own.items())

    outer = [b for b in blocks if not any(set(b.nodes) < set(other.nodes) for other in blocks) and is_own(b)]
    runs: list[list[Block]] = []
    for block in sorted(outer, key=lambda block: order[block.end]):
        if runs and runs[-1][-1].end is block.start and set(block.start.users) <= set(block.nodes):
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


def _block(node: fx.Node, order: dict[fx.Node, int], modules: dict[str, nn.Module]) -> Block | None:
    adds = node.target in _ADDITIONS if node.op == "call_function" else node.target in ("add", "add_")
    if node.op not in ("call_function", "call_method") or not adds or len(node.args) != 2:
        return None
    first, second = node.args
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return None
    for start, branch in ((first, second), (second, first)):
        inside = _between(start, branch, order)
        if inside is None:
            continue
        nodes = {*inside, node}
        if any(user not in nodes for own in inside for user in own.users):
            continue
        end = node
        while len(end.users) == 1 and _is_relu(user := next(iter(end.users)), modules):
            end = user
            nodes.add(end)
        if end is not node and not _is_relu(start, modules) and not _after_relu(start, modules):
            return None  # the identity would not have gone through the activation
        return Block(start, end, tuple(sorted(nodes, key=order.__getitem__)))
    return None


def _between(start: fx.Node, end: fx.Node, order: dict[fx.Node, int]) -> set[fx.Node] | None:
    """The nodes of ``f`` if ``end = f(start)`` depends on nothing else but parameters, and on ``start``."""
    found: set[fx.Node] = set()
    waiting = [end]
    reached = False
    while waiting:
        node = waiting.pop()
        if node is start:
            reached = True
        elif node in found:
            continue
        elif node.op == "placeholder" or (order[node] < order[start] and node.op != "get_attr"):
            return None
        else:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found if reached and found else None


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _ACTIVATIONS)
    return node.target in (*_ACTIVATION_FUNCTIONS, "relu", "relu_")


def _after_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a value has no negative numbers: a pooled ReLU's, say."""
    while node.op == "call_module" and isinstance(modules[str(node.target)], nn.MaxPool2d | nn.Dropout | nn.Identity):
        (node,) = node.all_input_nodes
    return _is_relu(node, modules)


def isolate(network: fx.GraphModule, start: fx.Node, end: fx.Node, name: str) -> fx.Node:
    """Make a module of a block's nodes, in their place; the modules that they call keep their names.

    Args:
        network: The graph, changed.
        start: The block's input.
        end: The block's output.
        name: Of the new module, if the block's modules have no common one that is theirs alone.

    Returns:
        The call of the new module, a :class:`ResidualBlock`.
    """
    order = {node: number for number, node in enumerate(network.graph.nodes)}
    inside = _inside(start, end)
    nodes = sorted(inside, key=order.__getitem__)
    prefix = _common_owner([str(node.target) for node in nodes if node.op in ("call_module", "get_attr")])
    others = [str(n.target) for n in network.graph.nodes if n.op in ("call_module", "get_attr") and n not in inside]
    if not prefix or any(other == prefix or other.startswith(f"{prefix}.") for other in others):
        prefix, cut = name, 0
        root: nn.Module = network
    else:
        cut = len(prefix) + 1
        root = network.get_submodule(prefix)
    graph = fx.Graph()
    copies = {start: graph.placeholder("x")}
    for node in nodes:
        copy = graph.node_copy(node, lambda argument: copies[argument])
        if node.op in ("call_module", "get_attr"):
            copy.target = str(node.target)[cut:]
        copies[node] = copy
    graph.output(copies[end])
    module = ResidualBlock(fx.GraphModule(root, graph))
    if cut:
        network.set_submodule(prefix, module)
    else:
        network.add_module(prefix, module)
    with network.graph.inserting_after(end):
        call = network.graph.call_module(prefix, (start,))
    end.replace_all_uses_with(call)
    for node in reversed(nodes):
        network.graph.erase_node(node)
    return call


def _inside(start: fx.Node, end: fx.Node) -> set[fx.Node]:
    """What computes a block's output from its input."""
    found: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node is not start and node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def _common_owner(names: list[str]) -> str:
    parts = [name.split(".")[:-1] for name in names]
    common: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join(common)
