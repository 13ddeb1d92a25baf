"""Many subnets as ONNX files, switched at run time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pss_razor.core import ExportError, check_extra
from pss_razor.deploy.files import MANIFEST_FILE, read_manifest, record_of_entry
from pss_razor.deploy.subnet_record import SubnetRecord
from pss_razor.deploy.subnet_switch import SubnetSwitch
from pss_razor.static.static_net import resize_images, show

_KIND = "onnx"


class OnnxAdaptiveModel(SubnetSwitch):
    """The subnets of an export folder, run by ONNX Runtime on the CPU.

    A session is opened when its subnet first runs, and closed when it is no longer among those used last. Needs the
    package onnxruntime.

    Args:
        subnets: What is known of the subnets.
        preprocessing: What is to be done to images before a call.
        files: The ONNX file of each subnet.
        max_sessions: Number of sessions that are open at most, besides those in use.
        num_threads: Threads of a session; 0 for as many as there are cores.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        ExportError: A number is out of range, there are no subnets, two have one name, or there is not one file for
            each.

    Example:
        >>> model = OnnxAdaptiveModel.load("export")  # doctest: +SKIP
        >>> model.select(latency_cpu_us=20_000)  # doctest: +SKIP
        >>> model.warm_up()  # doctest: +SKIP
        >>> logits = model(images)  # doctest: +SKIP
    """

    def __init__(
        self,
        subnets: Sequence[SubnetRecord],
        preprocessing: Mapping[str, Any],
        files: Sequence[str | os.PathLike[str]],
        max_sessions: int = 4,
        num_threads: int = 0,
    ) -> None:
        if type(max_sessions) is not int or max_sessions < 1:
            raise ExportError(f"max_sessions is {max_sessions!r}; it must be at least 1")
        if type(num_threads) is not int or num_threads < 0:
            raise ExportError(f"num_threads is {num_threads!r}; it must be a count, 0 for all cores")
        if len(files) != len(subnets):
            raise ExportError(f"there are {len(files)} files for {len(subnets)} subnets; give one for each")
        check_extra("onnx", "onnxruntime", what="an ONNX file")
        import onnxruntime

        super().__init__(subnets, preprocessing)
        self._runtime = onnxruntime
        self._files = [Path(file) for file in files]
        self._max_sessions = max_sessions
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = num_threads
        self._options.log_severity_level = 3  # errors; a damaged file is reported by us
        self._lock = threading.Lock()
        # Those that are open and those that a thread is opening, the one used last at the end.
        self._sessions: OrderedDict[int, Future[Any]] = OrderedDict()

    @classmethod
    def load(cls, directory: str | os.PathLike[str], max_sessions: int = 4, num_threads: int = 0) -> OnnxAdaptiveModel:
        """Reads the manifest of an export folder; the ONNX files are opened when they are needed.

        Args:
            directory: Folder with ``manifest.json``, in which every subnet has a file of kind "onnx".
            max_sessions: As for the class.
            num_threads: As for the class.

        Raises:
            ExportError: The manifest is missing or damaged, or a subnet has no ONNX file.
        """
        folder = Path(directory)
        manifest = read_manifest(folder)
        subnets, files = [], []
        for entry in manifest["subnets"]:
            record, file = record_of_entry(entry), entry["files"].get(_KIND)
            if file is None or not os.path.isfile(folder / file):
                raise ExportError(
                    f"{folder / MANIFEST_FILE}: subnet {show(record.name)} has no ONNX file ({show(file)}); export "
                    "with --formats onnx"
                )
            files.append(folder / file)
            subnets.append(record)
        return cls(subnets, manifest["preprocessing"], files, max_sessions, num_threads)

    @property
    def open_sessions(self) -> list[str]:
        """Names of the subnets whose sessions are open, the one used last at the end."""
        with self._lock:
            return [self.subnets[index].name for index, session in self._sessions.items() if session.done()]

    def _run(self, index: int, images: Tensor) -> Tensor:
        session = self._session(index)
        (images_input,) = session.get_inputs()
        # A file takes its own resolution, or any or the largest one, and resizes in the graph.
        side = images_input.shape[2]
        images = resize_images(images, side if isinstance(side, int) else self.subnets[index].resolution)
        (logits,) = session.run(None, {images_input.name: images.detach().contiguous().numpy()})
        return torch.from_numpy(logits)

    def _session(self, index: int) -> Any:
        # Opening takes long, and must not keep threads waiting that want another session.
        with self._lock:
            is_new = index not in self._sessions
            if is_new:
                while len(self._sessions) >= self._max_sessions:
                    self._sessions.popitem(last=False)  # closed when the last pass that runs it ends
                self._sessions[index] = Future()
            self._sessions.move_to_end(index)
            session = self._sessions[index]
        if is_new:
            try:
                session.set_result(self._open(self._files[index]))
            except BaseException as error:
                with self._lock:
                    if self._sessions.get(index) is session:  # the next that wants it tries again
                        del self._sessions[index]
                session.set_exception(error)
        return session.result()

    def _open(self, file: Path) -> Any:
        try:
            session = self._runtime.InferenceSession(file, self._options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's have no common base
            raise ExportError(f"{file} is damaged or not an ONNX file ({show(str(error))}); copy it again") from error
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4:
            found = [(value.name, value.shape) for value in (*inputs, *outputs)]
            raise ExportError(f"{file} has {show(found)}; a subnet takes images (N, 3, H, W) and returns logits")
        return session
