"""A GPU that is not there: tensors compute on the CPU and are said to lie on ``cuda:0``."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
_TORCH = str(Path(torch.__file__).parent)
# No kernel of torch's fake device knows it.
_WITHOUT_FAKE = {torch.ops.aten._fused_sgd_.default, torch.ops.aten._fused_sgd_.tensor_lr}
_SETTING = {torch.ops.aten.set_.source_Storage, torch.ops.aten.set_.source_Storage_storage_offset}
# FakeTensorMode lets tensors without dimensions pass.
_ALL_ON_ONE_DEVICE = {torch.ops.aten.cat.default, torch.ops.aten.stack.default}
_INDEXING = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._index_put_impl_.default,
}
_GETTERS: dict[Any, Callable[[Tensor], Any]] = {
    Tensor.device.__get__: lambda tensor: device_of(tensor),
    Tensor.is_cuda.__get__: lambda tensor: device_of(tensor) == CUDA,
    Tensor.is_cpu.__get__: lambda tensor: device_of(tensor) == CPU,
    Tensor.get_device: lambda tensor: 0 if device_of(tensor) == CUDA else -1,
}


@dataclass(frozen=True)
class Wait:
    """The host waits for all that the device has been told to do.

    Args:
        kind: ``"read"``: the host needs a value, or a size that depends on values; ``"copy"``: host memory is copied to
            the device, and torch waits for that unless the memory is pinned and the copy ``non_blocking``.
        operation: What torch calls it.
        stack: Where, innermost call last: ``file:function`` of all frames outside of torch.
    """

    kind: str
    operation: str
    stack: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} by {self.operation} at {' > '.join(self.stack[-4:])}"


class FakeCUDA(TorchFunctionMode):
    """While active, tensors can be moved to ``cuda`` on a machine without one, and it is noted where the host waits.

    Values are real, computed on the CPU, so that whole trainings run. Which device a tensor is said to lie on is kept
    with its storage. Of every kind of operation on a tensor on ``cuda`` torch's own ``FakeTensorMode`` is asked, with
    empty tensors of the same shapes, on which device the results are; it refuses what mixes devices. It alone would
    not do: without a driver torch cannot run a backward pass over its fake CUDA tensors (2.11: "hasPrimaryContext
    expects a valid device index").

    Found are values that the host reads (``item``, ``tolist``, ``cpu``, ``bool(tensor)``, …), sizes that depend on
    values (``nonzero``, boolean masks), copies that wait, either way, and operations on tensors of two devices.

    Missed are: mixtures that ``FakeTensorMode`` allows (a CPU tensor without dimensions passes in every operation,
    whereas some kernels refuse it); tensors that a hand-written C++ function makes on the CPU from those on the device;
    waits within a kernel or the allocator; several streams, process groups and DDP; autocast and ``GradScaler``, which
    look for a driver; and whatever only a CUDA kernel can tell (dtypes, memory, speed). Too much is noted where a
    function of torch looks at values on a CPU only, such as ``F.one_hot``.

    Attributes:
        waits: What was noted, in order.
        event_waits: How often an event was waited for; it is there already if the device is ahead of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.event_waits = 0
        self.inside_function = False
        self._operations = _Operations(self)

    def __enter__(self) -> FakeCUDA:
        self._stack = contextlib.ExitStack()
        fake, group = self, torch._C._group_tensors_by_device_and_dtype

        class Event:
            """``torch.cuda.Event``."""

            def record(self, stream: Any = None) -> None:
                """Does nothing."""

            def synchronize(self) -> None:
                fake.event_waits += 1

        class Stream:
            """``torch.cuda.Stream``; there is one."""

            def synchronize(self) -> None:
                fake.note("read", "synchronize")

        stream = Stream()
        self._stack.enter_context(mock.patch.object(torch.cuda, "Event", Event))
        self._stack.enter_context(mock.patch.object(torch.cuda, "current_stream", lambda device=None: stream))
        self._stack.enter_context(mock.patch.object(Tensor, "record_stream", lambda tensor, stream: None))
        self._stack.enter_context(
            mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", _grouped_by_label(group))
        )
        self._stack.enter_context(self._operations)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def take(self) -> list[Wait]:
        """The waits since the last call."""
        waits, self.waits = self.waits, []
        return waits

    def note(self, kind: str, operation: str) -> None:
        """Write down that the host waits here."""
        codes = [frame.f_code for frame, _ in traceback.walk_stack(None)]
        outside = [code for code in codes if not code.co_filename.startswith(_TORCH) and code.co_filename != __file__]
        stack = tuple(f"{Path(code.co_filename).stem}:{code.co_name}" for code in reversed(outside))
        self.waits.append(Wait(kind, operation, stack))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _GETTERS:
            return _GETTERS[func](*args, **kwargs)
        name = getattr(func, "__name__", "")
        if func in (Tensor.to, Tensor.cuda, Tensor.cpu):
            return self._move(func, *args, **kwargs)
        if func is Tensor.pin_memory:
            return _label(args[0].clone(), device_of(args[0]), pinned=True)
        if func is Tensor.is_pinned:
            return getattr(args[0].untyped_storage(), "pinned", False)
        if func in (Tensor.numpy, Tensor.__array__) and device_of(args[0]) == CUDA:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is Tensor.tolist and device_of(args[0]) == CUDA:
            self.note("read", name)
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            if name in ("tensor", "as_tensor", "new_tensor"):
                self.note("copy", name)
            return _label_all(func(*args, **{**kwargs, "device": CPU}), CUDA)
        with mock.patch.object(self, "inside_function", any(device_of(t) == CUDA for t in _tensors((args, kwargs)))):
            result = func(*args, **kwargs)
        if name == "__deepcopy__" or (name == "tensor" and isinstance(args[0], Tensor)):  # without any operation
            _label(result, device_of(args[0]))
        return result

    def _move(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``to``, ``cuda`` and ``cpu``."""
        if func is Tensor.cpu:
            args, kwargs = (CPU,), {}
        elif func is Tensor.cuda:
            args, kwargs = (CUDA,), {"non_blocking": kwargs.get("non_blocking", False)}
        if args and isinstance(args[0], Tensor):
            args = (device_of(args[0]), args[0].dtype, *args[1:])
        copy = kwargs.pop("copy", False)
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        before = device_of(tensor)
        options = {} if memory_format is None else {"memory_format": memory_format}
        if device is not None and device.type not in ("cpu", "cuda"):  # the meta device
            return tensor.to(device, dtype or tensor.dtype, copy=copy, **options)
        result = tensor.to(dtype=dtype or tensor.dtype, copy=copy, **options)
        after = before if device is None else CUDA if device.type == "cuda" else CPU
        if after == before:
            return result
        pinned = getattr(tensor.untyped_storage(), "pinned", False)
        # Towards the host, torch pins what a non-blocking copy writes to.
        if not non_blocking or (after == CUDA and not pinned):
            self.note("copy" if after == CUDA else "read", func.__name__)
        return _label(result.clone(), after, pinned=after == CPU and non_blocking)


class _Operations(TorchDispatchMode):
    """What happens below autograd, in backward passes too."""

    def __init__(self, cuda: FakeCUDA) -> None:
        super().__init__()
        self.cuda = cuda
        self.fake_mode = FakeTensorMode()
        # Operation and devices of the arguments -> device of the results, None where their number depends on values.
        self.known: dict[Any, torch.device | None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        with torch._C.DisableTorchFunction():
            return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = _tensors((args, kwargs))
        devices = [device_of(tensor) for tensor in tensors]
        if not devices and self.cuda.inside_function:  # what a function makes for itself lies where its arguments do
            return _label_all(func(*args, **kwargs), CUDA)
        if CUDA not in devices or func in _SETTING:
            return func(*args, **kwargs)
        name = func.name()
        if func is torch.ops.aten.copy_.default and devices[0] != devices[1]:
            if not ((len(args) > 2 and args[2]) or kwargs.get("non_blocking")):
                self.cuda.note("copy" if devices[0] == CUDA else "read", name)
            return func(*args, **kwargs)
        if func in _INDEXING and devices[0] == CUDA and CPU in devices[1:]:
            self.cuda.note("copy", name)
        if func in _WITHOUT_FAKE:
            assert CPU not in devices, f"{name} mixes cpu and cuda"
            return func(*args, **kwargs)
        if func in _ALL_ON_ONE_DEVICE and CPU in devices:
            raise RuntimeError(f"{name} has tensors on two different devices, {CUDA} and {CPU}")
        scalars = [tensor.dim() == 0 for tensor in tensors]
        key = (func, kwargs.get("device"), *zip(devices, [tensor.dtype for tensor in tensors], scalars, strict=True))
        if key not in self.known:
            self.known[key] = self._ask(func, args, kwargs)
        device = self.known[key]
        if device is None:
            self.cuda.note("read", name)
        return _label_all(func(*args, **kwargs), device or CUDA)

    def _ask(self, func: Any, args: Any, kwargs: dict[str, Any]) -> torch.device | None:
        """Ask ``FakeTensorMode`` for the device of the results.

        Raises:
            RuntimeError: The operation mixes devices.
        """

        def fake(tensor: Tensor) -> Tensor:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device_of(tensor))

        with self.fake_mode:
            try:
                fake_args, fake_kwargs = tree_map_only(Tensor, fake, (args, kwargs))
                devices = {tensor.device for tensor in _tensors(func(*fake_args, **fake_kwargs))}
            except (DataDependentOutputException, DynamicOutputShapeException):
                return None
        assert len(devices) <= 1, f"{func.name()} has results on {devices}"
        return devices.pop() if devices else CUDA


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and dicts; quicker than torch's own pytree."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [tensor for item in value for tensor in _tensors(item)]


def device_of(tensor: Tensor) -> torch.device:
    """The device that a tensor is said to lie on."""
    with torch._C.DisableTorchFunction():
        device = tensor.device
        return device if device.type != "cpu" else getattr(tensor.untyped_storage(), "device_label", CPU)


def _label_all(value: Any, device: torch.device) -> Any:
    for tensor in _tensors(value):
        _label(tensor, device)
    return value


def _label(tensor: Tensor, device: torch.device, pinned: bool = False) -> Tensor:
    with torch._C.DisableTorchFunction():
        if tensor.device.type == "cpu":
            storage = tensor.untyped_storage()
            storage.device_label, storage.pinned = device, pinned
    return tensor


def _grouped_by_label(group: Callable[..., Any]) -> Callable[..., Any]:
    """Optimizers and gradient clipping ask C++ on which devices tensors lie."""

    def grouped(tensor_lists: Any, *args: Any, **kwargs: Any) -> Any:
        groups = group(tensor_lists, *args, **kwargs)
        return {(device_of(lists[0][0]), dtype): (lists, *rest) for (_, dtype), (lists, *rest) in groups.items()}

    return grouped
