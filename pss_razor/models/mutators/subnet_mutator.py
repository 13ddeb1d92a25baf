"""The mutator between a supernet's mutables and the method's subnets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from pss_razor import compat
from pss_razor.core import ActiveSubnetMixin, ConfigError, Dimension, SearchSpace, Subnet
from pss_razor.registry import MODELS

from mmrazor.models.architectures.dynamic_ops import DynamicInputResizer
from mmrazor.models.mutators import NasMutator


@MODELS.register_module(name=["SubnetMutator", "PSSMutator"])  # the second is its name in configs of 0.1
class SubnetMutator(ActiveSubnetMixin, NasMutator):
    """``NasMutator`` with named search groups, a :class:`~pss_razor.core.SearchSpace` and quick switching.

    Any MMRazor search group is a dimension: a channel unit, a value (the input resolution among them), a one-shot op.
    The name of a group is the ``alias`` of its mutable; for an op without one, its place in the supernet, as in
    MMRazor's subnet files.

    Example:
        ``mutator=dict(type='SubnetMutator')``

    Attributes:
        space: The search space, in the order of the groups.
        generator: Of :meth:`sample_choices`, the same on all ranks; None draws as MMRazor does, from numpy's global
            generator.
    """

    space: SearchSpace
    generator: np.random.Generator | None = None
    _search_groups: dict[str, list[Any]]

    def prepare_from_supernet(self, supernet: nn.Module) -> None:
        """Find the search groups of ``supernet`` and activate the largest subnet.

        Raises:
            ConfigError: The supernet has nothing to search, or two groups of one name.
        """
        super().prepare_from_supernet(supernet)
        resizers = [module for module in supernet.modules() if isinstance(module, DynamicInputResizer)]
        resolutions = {id(r.mutable_attrs["shape"]) for r in resizers if "shape" in r.mutable_attrs}
        places = {id(module): place for place, module in supernet.named_modules()}
        groups: dict[str, list[Any]] = {}
        dimensions = []
        for default_name, members in self.search_groups.items():
            # A channel unit is bookkeeping around its mutable channel; switching addresses the mutable itself.
            mutables = [getattr(member, "mutable_channel", member) for member in members]
            place = places.get(id(mutables[0])) if getattr(mutables[0], "mutable_prefix", None) == "module" else None
            name = mutables[0].alias or place or default_name
            if name in groups:
                raise ConfigError(f"two search groups are called {name!r}; give their mutables different aliases")
            groups[name] = mutables
            dimensions.append(_dimension(name, mutables[0], is_resolution=id(mutables[0]) in resolutions))
        if not groups:
            raise ConfigError(
                f"{type(supernet).__name__} has nothing to search: build it from dynamic ops with mutables"
            )
        compat.set_search_groups(self, groups)
        self.space = SearchSpace(dimensions)
        # Calling each mutable's setter directly avoids nn.Module's setattr, most of the time of a switch.
        self._switches = [
            (name, frozenset(self.space.dimensions[self.space.position(name)].values), mutable, setter)
            for name, mutables in groups.items()
            for mutable in mutables
            for setter in [type(mutable).current_choice.fset]
        ]
        self._followers: list[Any] = [module for module in supernet.modules() if hasattr(module, "on_activate")]
        self._active = None
        self.activate(self.space.largest)

    def order_choices(self, choices: Mapping[str, Sequence[Any]]) -> None:
        """Order choices by size, which MMRazor does not do for ops, and activate the largest subnet.

        Args:
            choices: Search-group name -> all its choices, the smallest subnet's first.
        """
        dimensions = list(self.space.dimensions)
        for name, values in choices.items():
            column = self.space.position(name)
            before = dimensions[column]
            assert set(values) == set(before.values) and before.probabilities is not None, name
            probabilities = tuple(before.probabilities[before.index(value)] for value in values)
            dimensions[column] = dataclasses.replace(before, values=tuple(values), probabilities=probabilities)
        self.space = SearchSpace(dimensions)
        self.activate(self.space.largest)

    def activate(self, subnet: Subnet) -> None:
        """Switch the supernet to ``subnet``.

        Raises:
            ConfigError: The subnet is not in the search space; the supernet stays as it was.
        """
        if subnet is self._active:
            return
        if len(subnet) != len(self.space) or not all(subnet.get(name) in values for name, values, *_ in self._switches):
            self.space.encode([subnet])  # says what is wrong
        for name, _, mutable, set_choice in self._switches:
            set_choice(mutable, subnet[name])
        for module in self._followers:
            module.on_activate(subnet)
        self._active = subnet

    def set_choices(self, choices: Mapping[str, Any]) -> None:
        """MMRazor's name of :meth:`activate`, for a plain dict of choices."""
        self.activate(Subnet(choices))

    def set_max_choices(self) -> None:
        """MMRazor's name for activating the largest subnet."""
        self.activate(self.space.largest)

    def set_min_choices(self) -> None:
        """MMRazor's name for activating the smallest subnet."""
        self.activate(self.space.smallest)

    def sample_choices(self, kind: str = "random") -> dict[str, Any]:
        """Draw choices as plain values; MMRazor's are numpy scalars for ops, whose ``repr`` breaks its candidates."""
        if kind == "random" and self.generator is not None:
            return {
                d.name: d.values[self.generator.choice(len(d.values), p=d.probabilities)] for d in self.space.dimensions
            }
        choices = super().sample_choices(kind)
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in choices.items()}


def _dimension(name: str, mutable: Any, is_resolution: bool) -> Dimension:
    """The dimension of one mutable; a mutable without ``probabilities`` is uniform over its choices."""
    if isinstance(own := getattr(mutable, "dimension", None), Dimension):
        return own
    if hasattr(mutable, "candidate_choices"):
        return Dimension(name, "channels", tuple(mutable.candidate_choices), getattr(mutable, "probabilities", None))
    kind = "resolution" if is_resolution else "op" if mutable.mutable_prefix == "module" else "value"
    return Dimension(name, kind, tuple(mutable.choices))
