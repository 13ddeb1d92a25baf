"""A subnet of a one-shot supernet as a model of its own, to retrain or to test."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
import yaml
from torch import nn

from pss_razor import compat
from pss_razor.checkpoints.checkpoint import check_state_dict, read_checkpoint
from pss_razor.core import CheckpointError, ConfigError
from pss_razor.registry import MODELS

from mmengine.logging import print_log
from mmrazor.models.mutables import OneShotMutableOP
from mmrazor.registry import sub_model

# Prefix of the weights that a search of MMRazor saves; our searches and retrained subnets have none.
_PREFIX = "architecture."
# Limits far above any subnet file.
_MAX_FILE_BYTES = 2**18
_MAX_FILE_NESTING = 8


@MODELS.register_module()
def searched_subnet(
    cfg: Mapping[str, Any], fix_subnet: str | Mapping[str, Any] | None = None, init_cfg: Mapping[str, Any] | None = None
) -> nn.Module:
    """MMRazor's ``sub_model``, with the subnet found from the weights of a checkpoint.

    Naming the checkpoint is enough to retrain the subnet of a search, or to test a retrained one.

    Args:
        cfg: The supernet's architecture.
        fix_subnet: The subnet's yaml file, or its content, for new weights. The subnet of a checkpoint takes
            precedence, with a warning if the two differ.
        init_cfg: ``type='Pretrained'`` with a ``checkpoint`` of the subnet; None, or no checkpoint, starts afresh.

    Returns:
        The network with one op at each place, its weights loaded.

    Raises:
        ConfigError: Neither argument gives the subnet, or ``fix_subnet`` is not of this supernet.
        CheckpointError: The checkpoint is not of a single subnet of this supernet.

    Example:
        ``model=dict(type='searched_subnet', cfg=supernet, init_cfg=dict(type='Pretrained', checkpoint=FILE))``
    """
    supernet = MODELS.build(cfg)
    named = fix_subnet if isinstance(fix_subnet, str) else "that of the config"
    if fix_subnet is not None:
        fix_subnet = _check_subnet(supernet, _read_yaml(fix_subnet) if isinstance(fix_subnet, str) else fix_subnet)
    if init_cfg is None or init_cfg.get("checkpoint") is None:
        if fix_subnet is None:
            raise ConfigError(
                "it is not said which subnet: set model.init_cfg.checkpoint to the subnet_best.pth of a search, or "
                "model.fix_subnet to its best_fix_subnet.yaml"
            )
        return sub_model(cfg, fix_subnet)
    path = init_cfg["checkpoint"]
    state_dict = read_checkpoint(path, needs_pools=False)["state_dict"]
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in state_dict) else ""
    state_dict = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    found = _find_subnet(supernet, state_dict, path)
    wanted = fix_subnet or {}
    others = [place for place, choice in wanted.items() if found[place] != choice]
    if others:
        ops = found[others[0]]["chosen"], wanted[others[0]]["chosen"]
        print_log(
            f"the subnet is that of the weights {path}, not model.fix_subnet ({named}): they differ at {len(others)} "
            f"of {len(found)} places, first at {others[0]}, where it is {ops[0]} and not {ops[1]}",
            logger="current",
            level=logging.WARNING,
        )
    network = sub_model(cfg, found, init_cfg={**init_cfg, "prefix": prefix or None})
    check_state_dict(network, state_dict)
    return network


def _find_subnet(supernet: nn.Module, state_dict: Mapping[str, torch.Tensor], path: str) -> dict[str, dict[str, str]]:
    """Place -> chosen op: the one whose weights are there or, without weights, the op that has none."""
    subnet = {}
    for place, module in _ops(supernet).items():
        start = f"{place}._candidates."
        there = {name.removeprefix(start).split(".")[0] for name in state_dict if name.startswith(start)}
        ops = there or {op for op in module.choices if not compat.candidates_of(module)[op].state_dict()}
        if len(ops) != 1 or not ops <= set(module.choices):
            raise CheckpointError(
                f"{path} is of no single subnet of this supernet: at {place} it has {sorted(there) or 'nothing'}, the "
                f"ops are {module.choices}"
            )
        subnet[place] = {"chosen": ops.pop()}
    return subnet


def _check_subnet(supernet: nn.Module, subnet: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The content of a subnet file of this supernet; names of MMRazor's own search lose their prefix."""
    subnet = {place.removeprefix(_PREFIX): choice for place, choice in subnet.items()}
    ops = _ops(supernet)
    if subnet.keys() != ops.keys():
        place = min(subnet.keys() ^ ops.keys())
        raise ConfigError(f"fix_subnet is of another supernet: only one of them has {place:.200}")
    for place, module in ops.items():
        if not isinstance(subnet[place], Mapping) or subnet[place].get("chosen") not in module.choices:
            raise ConfigError(f"fix_subnet has {subnet[place]!s:.200} at {place}; the ops are {module.choices}")
    return {place: {"chosen": choice["chosen"]} for place, choice in subnet.items()}


def _ops(supernet: nn.Module) -> dict[str, OneShotMutableOP]:
    return {place: module for place, module in supernet.named_modules() if isinstance(module, OneShotMutableOP)}


class _SubnetLoader(yaml.BaseLoader):
    """Reads texts, lists and tables. Aliases are refused: they can expand far beyond the size of the file."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _MAX_FILE_NESTING or self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"it has an alias, or nests deeper than {_MAX_FILE_NESTING} levels")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1).decode()
        if len(text) > _MAX_FILE_BYTES:
            raise ConfigError(f"fix_subnet = {path} has more than {_MAX_FILE_BYTES} bytes; it is no subnet file")
        content = yaml.load(text, _SubnetLoader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"fix_subnet = {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"fix_subnet = {path} is no subnet file: it holds a {type(content).__name__}")
    return content
