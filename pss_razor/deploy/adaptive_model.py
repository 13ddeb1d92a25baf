"""Many subnets in one set of weights, switched at run time."""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from pss_razor.core import ExportError
from pss_razor.deploy.bundle import BundledSubnet, load_bundle
from pss_razor.deploy.subnet_switch import SubnetSwitch


class AdaptiveModel(SubnetSwitch):
    """The subnets of a bundle. Switching only changes an index; no weight is read or copied.

    A subnet's weights are views of the shared ones, or parts of them that are joined when they are read. PyTorch copies
    those that are not contiguous at each forward pass, so the first pass of a subnet replaces them by contiguous
    copies, which are kept for the subnets used last.

    Args:
        subnets: From :func:`load_bundle`.
        preprocessing: What is to be done to images before a call.
        working_copies: Number of subnets whose non-contiguous weights are kept as copies; 0 for none, which takes the
            least memory.

    Raises:
        ExportError: There are no subnets, two have one name, or ``working_copies`` is not a count.

    Example:
        >>> model = AdaptiveModel.load("export/bundle.safetensors")  # doctest: +SKIP
        >>> model.select(latency_cpu_us=20_000)  # doctest: +SKIP
        >>> logits = model(images)  # doctest: +SKIP
    """

    def __init__(
        self, subnets: Sequence[BundledSubnet], preprocessing: Mapping[str, Any], working_copies: int = 2
    ) -> None:
        if type(working_copies) is not int or working_copies < 0:
            raise ExportError(f"working_copies is {working_copies!r}; it must be a count")
        parameters = [parameter for subnet in subnets for parameter in subnet.net.parameters()]
        super().__init__(subnets, preprocessing, parameters[0].device if parameters else "cpu")
        self._nets = [subnet.net for subnet in subnets]
        self._working_copies = working_copies
        self._lock = threading.Lock()
        # Subnet with copies, the one used last at the end -> the views to put back.
        self._views: OrderedDict[int, list[tuple[nn.Module, str, nn.Parameter]]] = OrderedDict()
        # Streams of a GPU on which passes ran. Any of them may be reading a copy.
        self._streams: set[Any] = set()

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], device: str | torch.device = "cpu", working_copies: int = 2
    ) -> AdaptiveModel:
        """Reads a bundle, which need not be trusted.

        Args:
            path: The file.
            device: Where the weights are to be; images must be there too.
            working_copies: As for the class.

        Raises:
            ExportError: The file is missing, damaged, or not a bundle.
        """
        return cls(*load_bundle(path, device), working_copies=working_copies)

    def _run(self, index: int, images: Tensor) -> Tensor:
        if self._working_copies:
            self._make_contiguous(index)
        return self._nets[index](images)

    def _make_contiguous(self, index: int) -> None:
        # A pass under way may meet a weight before or after it is replaced: both have the same values.
        with self._lock:
            stream = self._current_stream()
            if stream is not None and stream not in self._streams:
                for other in self._streams:  # where copies may be under way
                    stream.wait_stream(other)
                self._streams.add(stream)
                for module, name, _ in itertools.chain(*self._views.values()):
                    getattr(module, name).record_stream(stream)
            if index in self._views:
                self._views.move_to_end(index)
                return
            while len(self._views) >= self._working_copies:
                for module, name, view in self._views.popitem(last=False)[1]:
                    module._parameters[name] = view
            views = [
                (module, name, parameter)
                for module in self._nets[index].modules()
                for name, parameter in module._parameters.items()
                if parameter is not None and (isinstance(module, ParametrizationList) or not parameter.is_contiguous())
            ]
            copies = [
                nn.Parameter(
                    # Of a joined weight, what it is joined of makes way for the result.
                    module() if isinstance(module, ParametrizationList) else view.contiguous(),
                    requires_grad=False,
                )
                for module, _, view in views
            ]
            if len(self._streams) > 1:
                stream.synchronize()  # a pass on another stream would not wait for what this one is to copy
            for copy, other in itertools.product(copies, self._streams):
                copy.record_stream(other)  # keeps the memory until passes on other streams end
            for (module, name, _), copy in zip(views, copies, strict=True):
                module._parameters[name] = copy
            self._views[index] = views

    def _current_stream(self) -> Any:
        """The stream of this thread's passes on a GPU; None on a CPU, where copies are made at once."""
        return torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
