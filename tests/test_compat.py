"""Each point of ``pss_razor/compat.py``: that it works, and that the stack without it still does not.

A test of ``TestStillNeeded`` that fails says that its point can go.
"""

from __future__ import annotations

import collections
import copyreg
import io
import json
import os
import pickle
import stat
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from pss_razor import compat, registry

import mmengine
from mmengine.dist import init_dist
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner, save_checkpoint
from mmrazor.engine import EvolutionSearchLoop
from mmrazor.models.mutables import OneShotMutableOP
from mmrazor.models.mutators import NasMutator
from mmrazor.structures import export_fix_subnet


def run_python(program: str, *arguments: str) -> dict:
    """What a program in a fresh interpreter prints as JSON in its last line."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def message_hub_checkpoint(tmp_path_factory) -> Path:
    """A checkpoint with what mmengine itself stores: history buffers, numpy arrays and scalars."""
    hub = MessageHub("test_compat")
    for step in range(3):
        hub.update_scalar("train/loss", 2.0 - step)
    hub.update_info("iter", 3)
    path = tmp_path_factory.mktemp("checkpoint") / "epoch_1.pth"
    content = dict(
        state_dict=dict(weight=torch.ones(2)),
        message_hub=hub.state_dict(),
        meta=dict(best=np.float64(0.5), epochs=np.int64(3), curve=np.arange(3.0), steps=np.arange(3)),
    )
    torch.save(content, path)
    return path


class TestStillNeeded:
    @pytest.fixture(scope="class")
    def without(self, message_hub_checkpoint) -> dict:
        """What the stack does in an interpreter that never imports pss_razor."""
        return run_python(
            """
            import json, sys
            outcome = {}

            def attempt(name, function):
                try:
                    function()
                    outcome[name] = "works"
                except Exception as error:
                    outcome[name] = type(error).__name__

            def import_mmrazor():
                import mmrazor.models

            def load():
                import torch
                import mmengine.runner
                torch.load(sys.argv[1], weights_only=True)

            def cross_package_config():
                from mmengine.config import Config
                Config.fromstring("_base_ = 'mmcls::_base_/default_runtime.py'", ".py")

            def first_step_skipped():
                import torch
                torch.use_deterministic_algorithms(True)  # memory that is not initialised holds NaN
                parameter = torch.nn.Parameter(torch.ones(2))
                optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, fused=True)
                scaler = torch.amp.GradScaler("cpu")
                for factor in (float("inf"), 1.0):
                    scaler.scale((parameter * factor).sum()).backward()
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()
                outcome["parameter after a skipped and a taken step"] = str(parameter[0].item())

            def format_config():
                from unittest import mock
                from mmengine.config import Config
                kept = {"side_effect": lambda text, **options: (text, True)}
                with mock.patch("mmengine.config.config.FormatCode", **kept) as called:
                    config = Config({"a": 1})
                    config.pretty_text, config.pretty_text
                outcome["formatting of one config"] = called.call_count

            attempt("format a config", format_config)
            attempt("fused SGD", first_step_skipped)
            attempt("import mmrazor.models", import_mmrazor)
            attempt("load", load)
            attempt("cross-package config", cross_package_config)
            sys.modules["pkg_resources"] = None
            attempt("cross-package config without pkg_resources", cross_package_config)
            outcome["pss_razor"] = any(name.startswith("pss_razor") for name in sys.modules)
            print(json.dumps(outcome))
            """,
            str(message_hub_checkpoint),
        )

    def test_mmrazor_does_not_import(self, without):
        assert without["import mmrazor.models"] == "ImportError" and not without["pss_razor"]

    def test_mmengines_own_checkpoints_are_refused(self, without):
        assert without["load"] == "UnpicklingError"

    def test_mmengine_formats_a_config_each_time(self, without):
        assert without["formatting of one config"] == 2

    def test_mmengine_needs_pkg_resources(self, without):
        assert without["cross-package config"] == "works"
        assert without["cross-package config without pkg_resources"] == "ModuleNotFoundError"
        assert int(version("setuptools").split(".")[0]) < 81

    def test_fused_sgd_starts_from_memory_that_is_not_initialised(self, without):
        assert without["parameter after a skipped and a taken step"] == "nan"

    def test_mmengines_local_backend_is_not_atomic(self, tmp_path):
        """It opens the final name: a write that fails leaves neither the old nor the new content."""
        path = tmp_path / "checkpoint.pth"
        path.write_bytes(b"old")
        with pytest.raises(TypeError):
            LocalBackend().put("not bytes", path)
        assert path.read_bytes() == b""

    def test_mmengines_local_backend_lists_by_relpath(self, tmp_path):
        (tmp_path / "a.png").touch()
        with mock.patch("os.path.relpath", side_effect=OSError("slow")), pytest.raises(OSError, match="slow"):
            list(LocalBackend().list_dir_or_file(tmp_path))

    def test_init_dist_sets_a_cuda_device_whatever_the_backend(self, monkeypatch):
        class SetDevice(Exception):  # noqa: N818
            pass

        def set_device(device):
            raise SetDevice

        monkeypatch.setattr(torch.cuda, "set_device", set_device)
        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(name, "0")
        with pytest.raises(SetDevice):
            init_dist("pytorch", "gloo")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
    def test_amp_wrapper_refuses_the_cpu(self):
        with pytest.raises(AssertionError, match="only available training on gpu"):
            AmpOptimWrapper(optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1))

    def test_mutator_samples_numpy_scalars(self):
        registry.MODELS.register_module(name="CompatConv", module=nn.Conv2d, force=True)
        candidate = dict(type="CompatConv", in_channels=1, out_channels=1, kernel_size=1)
        supernet = nn.Sequential(OneShotMutableOP(dict(a=candidate, b=candidate), module_kwargs={}))
        mutator = NasMutator()
        mutator.prepare_from_supernet(supernet)
        (choice,) = mutator.sample_choices().values()
        assert isinstance(choice, np.generic) and repr(choice).startswith("np.")


class TestQuantization:
    def test_mmrazor_imports_and_its_quantization_refuses(self):
        from mmrazor.models.algorithms import SPOS, AutoSlim  # noqa: F401
        from mmrazor.structures.quantization import BackendConfigs, QConfigHandler

        for stand_in in (BackendConfigs, QConfigHandler):
            with pytest.raises(NotImplementedError, match="quantization does not work on torch >= 2"):
                stand_in(dict(w_observer=None))

    def test_apply_again_changes_nothing(self):
        before = sys.modules["mmrazor.structures.quantization"]
        backend = get_file_backend("x")
        compat.apply()
        assert sys.modules["mmrazor.structures.quantization"] is before
        assert type(get_file_backend("x")).__name__ == type(backend).__name__ == "MendedLocalBackend"


def test_the_text_of_a_config_is_formatted_once():
    found = run_python(
        """
        import json
        from unittest import mock
        from yapf.yapflib import yapf_api
        from pss_razor import registry
        from mmengine.config import Config

        config = Config({"model": {"a": 1, "b": "text"}})
        with mock.patch.object(yapf_api, "FormatTree", wraps=yapf_api.FormatTree) as counted:
            texts = [config.pretty_text for _ in range(3)]
            of_three = counted.call_count
            config.model.a = 2
            texts.append(config.pretty_text)
        print(json.dumps([texts, of_three, counted.call_count]))
        """
    )
    first, changed = "model = dict(a=1, b='text')\n", "model = dict(a=2, b='text')\n"
    assert found == [[first, first, first, changed], 1, 2]


class Ask:
    """Pickles as a call of ``function(*arguments)``: what a malicious file does."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Built:
    """Pickles as an object that is then given a state."""

    __class__ = HistoryBuffer  # for those who look whether it is what ``New`` says

    def __init__(self, made, state):
        self.made, self.state = made, state

    def __reduce__(self):
        function, arguments, *_ = self.made.__reduce__()
        return function, arguments, self.state


class New:
    """Pickles as a new ``HistoryBuffer`` without a state."""

    __class__ = HistoryBuffer

    def __reduce__(self):
        return copyreg.__newobj__, (HistoryBuffer,)


def Filled(*state):  # noqa: N802
    """Pickles as an array with this state; with a dtype alone, of one number."""
    if len(state) == 1:
        state = (1, (1,), *state, False, b"A" * 8)
    return Built(Ask(np.zeros(0).__reduce__()[0], np.ndarray, (0,), b"b"), state)


def pickled(content) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


class TestCheckpoints:
    def test_message_hub_round_trip(self, message_hub_checkpoint):
        content = torch.load(message_hub_checkpoint, weights_only=True)
        hub = MessageHub("test_compat_loaded")
        hub.load_state_dict(content["message_hub"])
        loss = hub.get_scalar("train/loss")
        assert (loss.current(), loss.min(), loss.max(), loss.mean()) == (0.0, 0.0, 2.0, 1.0)
        assert loss.statistics("mean") == 1.0 and hub.get_info("iter") == 3
        meta = content["meta"]
        assert meta["best"] == 0.5 and type(meta["best"]) is np.float64 and meta["epochs"] == 3
        np.testing.assert_array_equal(meta["curve"], [0.0, 1.0, 2.0])
        assert meta["curve"].dtype == np.float64 and meta["steps"].dtype == np.int64

    def test_a_checkpoint_written_under_numpy_1(self):
        content = dict(array=np.arange(3.0), scalar=np.float64(0.5))
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=False)
        data = file.getvalue()
        assert b"cnumpy._core.multiarray\n" in data
        loaded = torch.load(
            io.BytesIO(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")), weights_only=True
        )
        np.testing.assert_array_equal(loaded["array"], content["array"])
        assert loaded["scalar"] == 0.5

    @pytest.mark.parametrize("name", ["mean", "min", "max", "current"])
    def test_history_buffers_four_methods(self, name):
        assert torch.load(pickled(Ask(getattr, HistoryBuffer, name)), weights_only=True) is getattr(HistoryBuffer, name)

    @pytest.mark.parametrize(
        ("owner", "name"),
        [
            (HistoryBuffer, "__init__"),
            (HistoryBuffer, "__class__"),
            (HistoryBuffer, "__subclasses__"),
            (HistoryBuffer, "register_statistics"),
            (HistoryBuffer, "_statistics_methods"),
            (np.ndarray, "mean"),
            (np.ndarray, "tofile"),
            (collections.OrderedDict, "__class__"),
            (HistoryBuffer([1.0], [1]), "mean"),
            (Ask(getattr, HistoryBuffer, "mean"), "__globals__"),
            ("text", "format"),
            (torch.nn.Parameter(torch.zeros(1)), "mean"),
        ],
    )
    def test_getattr_of_anything_else_is_refused(self, owner, name):
        with pytest.raises(
            (pickle.UnpicklingError, PermissionError), match=r"asks for attribute|Unsupported|not allowed"
        ):
            torch.load(pickled(Ask(getattr, owner, name)), weights_only=True)

    @pytest.mark.parametrize("function", [os.system, subprocess.getoutput, eval, exec, __import__, setattr, open])
    def test_calls_are_refused_and_nothing_runs(self, function, tmp_path):
        marker = tmp_path / "executed"
        arguments = {
            os.system: (f"touch {marker}",),
            subprocess.getoutput: (f"touch {marker}",),
            eval: (f"open({str(marker)!r}, 'w')",),
            exec: (f"open({str(marker)!r}, 'w')",),
            __import__: ("antigravity",),
            setattr: (HistoryBuffer, "mean", None),
            open: (str(marker), "w"),
        }[function]
        mean = HistoryBuffer.mean
        with (
            mock.patch.dict(sys.modules),
            pytest.raises(pickle.UnpicklingError, match=r"(?i)unsupported global"),
        ):
            torch.load(pickled(dict(state_dict={}, payload=Ask(function, *arguments))), weights_only=True)
        assert not marker.exists() and HistoryBuffer.mean is mean and "antigravity" not in sys.modules

    def test_allowed_methods_cannot_be_called(self):
        """The four methods may be named, not run."""
        file = io.BytesIO()
        # REDUCE of what REDUCE returned: getattr(HistoryBuffer, "mean")(1)
        torch.save(Ask(getattr, HistoryBuffer, "mean"), file, _use_new_zipfile_serialization=False)
        data = file.getvalue()
        inner = pickle.dumps(Ask(getattr, HistoryBuffer, "mean"), protocol=2)
        assert data.count(inner) == 1
        data = data.replace(inner, inner[:-1] + b"K\x01\x85R.")
        with pytest.raises(pickle.UnpicklingError):
            torch.load(io.BytesIO(data), weights_only=True)

    def test_what_is_read_is_mmengines_and_numpys_own(self, message_hub_checkpoint):
        """Not the stand-ins that checked it, and so what is saved next is read without them."""
        content = torch.load(message_hub_checkpoint, weights_only=True)
        buffer = content["message_hub"]["log_scalars"]["train/loss"]
        assert type(buffer) is HistoryBuffer and type(buffer._log_history) is type(buffer._count_history) is np.ndarray
        buffer.update(7.0)
        assert buffer.data[0].tolist() == [2.0, 1.0, 0.0, 7.0] and type(buffer.data[0]) is np.ndarray
        curve = pickle.loads(pickle.dumps(content["meta"]["curve"]))
        assert type(curve) is np.ndarray and curve.tolist() == [0.0, 1.0, 2.0]

    @pytest.mark.parametrize("code", ["b1", "u1", "i2", "<i4", ">i8", "f2", ">f4", "f8", "u4"])
    def test_arrays_of_numbers(self, code):
        array = np.arange(24).reshape(2, 3, 4).astype(code)
        content = [array, array.T, array[:, ::2], array[1, 1, 1], np.array(3, code)]
        for loaded, expected in zip(torch.load(pickled(content), weights_only=True), content, strict=True):
            np.testing.assert_array_equal(loaded, expected)
            assert loaded.dtype == expected.dtype.newbyteorder("=") and loaded.shape == expected.shape

    POINTERS = {
        "from a buffer": (Ask(np.ndarray, (1,), "O", b"A" * 8), "TypeError"),
        "in fields that a dtype does not know of": (  # it is an array of a number, and has no fields
            Filled(
                Built(
                    Ask(np.dtype, "f8", False, True), (3, "<", None, ("a",), {"a": (Ask(np.dtype, "O"), 0)}, -1, -1, 0)
                )
            ),
            "IndexError",
        ),
    }

    @pytest.mark.parametrize("case", POINTERS)
    def test_no_arrays_of_pointers(self, case, tmp_path):
        """With numpy's own functions, what such a file holds crashed the process when its first element was read."""
        content, error = self.POINTERS[case]
        path = tmp_path / "pointers.pth"
        torch.save({"state_dict": {}, "array": content}, path)
        outcome = run_python(
            """
            import json, sys
            import pss_razor.registry, torch
            try:
                array = torch.load(sys.argv[1], weights_only=True)["array"]
                print(json.dumps(repr((array if array.dtype == object else array["a"])[0])))
            except Exception as error:
                print(json.dumps(type(error).__name__))
            """,
            str(path),
        )
        assert outcome == error

    @pytest.mark.parametrize(
        "state",
        [
            (1, (2,), Ask(np.dtype, "f8", False, True), False, b"A" * 8),
            (1, (2**62, 4), Ask(np.dtype, "f8", False, True), False, b""),
            (1, (-1,), Ask(np.dtype, "f8", False, True), False, b"A" * 8),
            (1, (1,), Ask(np.dtype, "O"), False, b"A" * 8),
            (1, (1,), Ask(np.dtype, "f8,O", False, True), False, b"A" * 16),
            (1, (1,), Ask(np.dtype, "M8[s]", False, True), False, b"A" * 8),
            (1, (1,), Ask(np.dtype, "O"), False, [print]),
        ],
    )
    def test_arrays_that_lie(self, state):
        with pytest.raises((ValueError, pickle.UnpicklingError)):
            torch.load(pickled(Filled(*state)), weights_only=True)

    def test_history_buffers_that_lie(self):
        for change in (
            dict(_log_history=np.zeros((2, 2))),
            dict(_log_history=np.zeros(3)),
            dict(_log_history=[1.0, 2.0]),
            dict(max_length=None),
            dict(statistics_methods=dict(mean=HistoryBuffer.min)),
        ):
            state = {**vars(HistoryBuffer([1.0, 2.0], [1, 1])), **change}
            with pytest.raises(ValueError, match="a HistoryBuffer"):
                torch.load(pickled(Built(New(), state)), weights_only=True)

    def test_getattr_itself_is_not_changed(self):
        assert getattr(np, "float" + "64") is np.float64
        names = [entry[1] if isinstance(entry, tuple) else entry for entry in torch.serialization.get_safe_globals()]
        assert getattr not in names and "builtins.getattr" in names


class TestListing:
    @pytest.fixture
    def folder(self, tmp_path):
        """Hidden and other files, three levels of folders, and links, one of which leads nowhere."""
        for name in ("b/2.png", "b/1.png", "b/.hidden", "a/deep/deeper/3.png", ".git/4.png", "top.png"):
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (tmp_path / "data" / "empty").mkdir()
        (tmp_path / "data" / "b" / "link.png").symlink_to("1.png")
        (tmp_path / "data" / "link").symlink_to("b")
        (tmp_path / "data" / "nowhere.png").symlink_to("none.png")
        return tmp_path / "data"

    @pytest.mark.parametrize("recursive", [False, True])
    @pytest.mark.parametrize(("folders", "files"), [(True, True), (True, False), (False, True)])
    @pytest.mark.parametrize("kind", [str, Path, "{}/".format])
    def test_the_names_of_mmengine(self, folder, kind, folders, files, recursive):
        own, theirs = (
            list(backend.list_dir_or_file(kind(folder), folders, files, recursive=recursive))
            for backend in (get_file_backend("x"), LocalBackend())
        )
        assert own == theirs and len(own) >= (1 if not folders and not recursive else 3)

    def test_suffix(self, folder):
        backend = get_file_backend("x")
        assert sorted(backend.list_dir_or_file(folder / "b", list_dir=False, suffix="1.png")) == ["1.png"]

    def test_a_folder_that_is_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            list(get_file_backend("x").list_dir_or_file(tmp_path / "none"))


class TestAtomicWrites:
    def test_contents(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        backend = get_file_backend("a/b/file")
        backend.put(b"bytes", tmp_path / "new" / "folder" / "file")
        assert (tmp_path / "new" / "folder" / "file").read_bytes() == b"bytes"
        backend.put(io.BytesIO(b"stream"), str(tmp_path / "file"))
        assert (tmp_path / "file").read_bytes() == b"stream"
        backend.put_text("täxt", "relative")
        assert Path("relative").read_text(encoding="utf-8") == "täxt"
        backend.put_text("täxt", "latin", encoding="latin-1")
        assert Path("latin").read_bytes() == "täxt".encode("latin-1")
        assert sorted(os.listdir(tmp_path)) == ["file", "latin", "new", "relative"]

    def test_mmengine_writes_through_it(self, tmp_path):
        with mock.patch("os.replace", side_effect=OSError("full")) as replace:
            for write in (
                lambda: save_checkpoint(dict(a=torch.ones(1)), str(tmp_path / "a.pth")),
                lambda: mmengine.dump(dict(a=1), str(tmp_path / "a.json")),
                lambda: mmengine.fileio.put(b"a", str(tmp_path / "a.bin")),
            ):
                with pytest.raises(OSError, match="full"):
                    write()
        assert replace.call_count == 3 and os.listdir(tmp_path) == []
        save_checkpoint(dict(a=torch.ones(1)), str(tmp_path / "a.pth"))
        assert torch.load(tmp_path / "a.pth", weights_only=True)["a"] == 1
        assert os.listdir(tmp_path) == ["a.pth"]

    @pytest.mark.parametrize("failing", ["write", "os.fsync", "os.replace"])
    @pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
    def test_a_failure_leaves_the_old_content_and_no_temporary_file(self, tmp_path, failing, error):
        path = tmp_path / "checkpoint.pth"
        path.write_bytes(b"old")

        class Content:
            def getvalue(self):
                if failing == "write":
                    return "not bytes"
                return b"new content"

        if failing == "write":
            with pytest.raises(TypeError):
                get_file_backend(str(path)).put(Content(), str(path))
        else:
            with mock.patch(failing, side_effect=error("no space left")), pytest.raises(error):
                get_file_backend(str(path)).put(Content(), str(path))
        assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["checkpoint.pth"]
        get_file_backend(str(path)).put(b"new", str(path))
        assert path.read_bytes() == b"new"

    def test_the_final_name_never_holds_half_a_file(self, tmp_path):
        """At the moment of the exchange the old file is whole and the new one is complete under its own name."""
        path = tmp_path / "checkpoint.pth"
        path.write_bytes(b"old")
        exchange = os.replace
        seen = []

        def replace(source, target):
            seen.append((Path(source).read_bytes(), Path(target).read_bytes(), Path(source).parent))
            exchange(source, target)

        with mock.patch("os.replace", replace):
            get_file_backend(str(path)).put(b"new", str(path))
        assert seen == [(b"new", b"old", tmp_path)]

    @pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
    def test_mode_respects_umask(self, tmp_path, umask):
        path = tmp_path / "file"
        before = os.umask(umask)
        try:
            get_file_backend(str(path)).put(b"x", str(path))
            assert os.umask(umask) == umask
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask

    def test_a_symbolic_link_stays(self, tmp_path):
        target, link = tmp_path / "target", tmp_path / "link"
        target.write_bytes(b"old")
        link.symlink_to(target)
        get_file_backend(str(link)).put(b"new", str(link))
        assert link.is_symlink() and target.read_bytes() == b"new"


def sgd_by_hand(start, gradients, lr, momentum, weight_decay=0.0, dampening=0.0, nesterov=False):
    """SGD by its definition in float64; a gradient that is not finite is no step."""
    parameter, velocity = start.astype(np.float64), None
    for gradient in gradients:
        if not np.isfinite(gradient).all():
            continue
        gradient = gradient + weight_decay * parameter
        velocity = gradient if velocity is None else momentum * velocity + (1 - dampening) * gradient
        parameter = parameter - lr * (gradient + momentum * velocity if nesterov else velocity)
    return parameter


@pytest.fixture
def garbage(monkeypatch):
    """Memory that is not initialised holds NaN."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("garbage")
class TestFusedSGD:
    OPTIONS = (
        dict(lr=0.1, momentum=0.9),
        dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        dict(lr=0.1, momentum=0.8, dampening=0.3, weight_decay=0.01),
        dict(lr=0.1, momentum=0.0),
    )

    @staticmethod
    def train(gradients, options, scaler, stop=None):
        """Parameter and optimizer after the steps; at ``stop`` both go on from their state."""
        parameter = nn.Parameter(torch.linspace(-1, 1, 5))
        optimizer = torch.optim.SGD([parameter], fused=True, **options)
        for step, gradient in enumerate(gradients):
            if step == stop:
                state = optimizer.state_dict()
                optimizer = torch.optim.SGD([parameter], fused=True, **options)
                optimizer.load_state_dict(state)
            if scaler is None:
                parameter.grad = torch.from_numpy(gradient).float()
                optimizer.step()
            else:
                scaler.scale((parameter * torch.from_numpy(gradient).float()).sum()).backward()
                scaler.step(optimizer)
                scaler.update()
            optimizer.zero_grad()
        return parameter.detach(), optimizer

    @pytest.mark.parametrize("options", OPTIONS)
    @pytest.mark.parametrize("skipped", [(0,), (0, 1, 2), (0, 3)])
    @pytest.mark.parametrize("stop", [None, 1])
    def test_skipped_steps_against_the_definition(self, options, skipped, stop):
        gradients = np.random.default_rng(0).normal(size=(6, 5))
        gradients[list(skipped), 1] = np.inf
        start = np.linspace(-1, 1, 5)
        parameter, _ = self.train(gradients, options, torch.amp.GradScaler("cpu", init_scale=4.0), stop)
        np.testing.assert_allclose(parameter.numpy(), sgd_by_hand(start, gradients, **options), rtol=1e-5)
        assert not np.allclose(parameter.numpy(), start)

    @pytest.mark.parametrize("options", OPTIONS)
    def test_without_an_overflow_scaling_changes_no_bit(self, options):
        gradients = np.random.default_rng(1).normal(size=(4, 5))
        plain, plain_optimizer = self.train(gradients, options, None)
        # a power of two
        scaled, scaled_optimizer = self.train(gradients, options, torch.amp.GradScaler("cpu", init_scale=1024.0))
        assert torch.equal(plain, scaled)
        for one, other in zip(plain_optimizer.state.values(), scaled_optimizer.state.values(), strict=True):
            assert one.keys() == other.keys()
            assert all(one[name] is other[name] is None or torch.equal(one[name], other[name]) for name in one)

    def test_unscaled_before_as_for_clipping(self):
        parameter = nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for factor in (float("inf"), 2.0):
            scaler.scale((parameter * factor).sum()).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_([parameter], 100.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        torch.testing.assert_close(parameter.detach(), torch.full((3,), 0.8))

    def test_the_device_is_read_until_there_is_momentum(self, monkeypatch):
        reads = []
        parameter = nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, fused=True)
        item = torch.Tensor.item
        monkeypatch.setattr(torch.Tensor, "item", lambda self: reads.append(1) or item(self))
        for overflow in (1.0, 1.0, 0.0, 0.0, 1.0):
            parameter.grad = torch.ones(3)
            optimizer.grad_scale, optimizer.found_inf = torch.ones(()), torch.full((), overflow)
            optimizer.step()
        assert len(reads) == 3


class TestGlooWithoutGPU:
    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
    def test_init_dist_works_inside(self, tmp_path, monkeypatch):
        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(name, "0")
        original = torch.cuda.set_device
        try:
            with compat.gloo_without_gpu():
                init_dist("pytorch", "gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
            total = torch.tensor([2.0])
            torch.distributed.all_reduce(total)
            assert total.item() == 2.0 and torch.distributed.get_backend() == "gloo"
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        assert torch.cuda.set_device is original

    def test_restores_after_an_exception(self):
        original = torch.cuda.set_device
        with pytest.raises(RuntimeError, match="inside"), compat.gloo_without_gpu():
            raise RuntimeError("inside")
        assert torch.cuda.set_device is original

    def test_leaves_a_machine_with_a_gpu_alone(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        original = torch.cuda.set_device
        with compat.gloo_without_gpu():
            assert torch.cuda.set_device is original


def test_nothing_else_of_the_package_loads_openmmlab():
    """`import pss_razor` and `pss_razor.core` need neither torch nor OpenMMLab."""
    loaded = run_python(
        """
        import json, sys
        import pss_razor, pss_razor.core
        print(json.dumps({name: name in sys.modules for name in ("torch", "mmengine", "mmcv", "mmcls", "mmrazor")}))
        """
    )
    assert not any(loaded.values()), loaded


class TestSearchStillNeeded:
    """MMRazor's evolution search, and what our subclass of it does otherwise."""

    @pytest.fixture
    def spos(self):
        candidates = {name: dict(type="MBBlock", kernel_size=k, expand_ratio=1) for name, k in dict(k3=3, k5=5).items()}
        op = dict(type="OneShotMutableOP", candidates=candidates)
        backbone = dict(type="SearchableMobileNetV2", arch_setting=[[8, 1, 1, op]], first_channels=8, last_channels=8,
                        out_indices=(1,))  # fmt: skip
        head = dict(type="mmcls.LinearClsHead", num_classes=2, in_channels=8)
        neck = dict(type="mmcls.GlobalAveragePooling")
        architecture = dict(type="mmcls.ImageClassifier", backbone=backbone, neck=neck, head=head)
        return registry.MODELS.build(
            dict(type="SPOS", architecture=architecture, mutator=dict(type="SubnetMutator"), norm_training=True)
        )

    def test_resume_subtracts_the_epoch_twice(self, tmp_path):
        loop = object.__new__(EvolutionSearchLoop)
        loop._runner, loop.resume_from, loop._max_epochs = mock.Mock(rank=0), str(tmp_path / "search_epoch_6.pkl"), 10
        mmengine.dump(dict(_epoch=6), loop.resume_from)
        loop._resume()
        assert loop._epoch == 6 and loop._max_epochs == 4  # so that `while epoch < max_epochs` ends at once

    def test_its_subnet_file_has_a_prefix(self, spos):
        fix_subnet, _ = export_fix_subnet(spos)
        assert list(fix_subnet) == ["architecture.backbone.layer1.0"]

    def test_norm_training_moves_the_statistics(self, spos):
        spos.eval()
        norm = spos.architecture.backbone.conv1.bn
        before = norm.running_mean.clone()
        spos(torch.randn(4, 3, 16, 16) + 1, mode="tensor")
        assert not torch.equal(norm.running_mean, before)

    def test_a_latency_of_a_cpu_is_nothing(self, spos):
        _, network = export_fix_subnet(spos, slice_weight=True)
        estimate = registry.TASK_UTILS.build(dict(type="ResourceEstimator")).estimate(network.architecture)
        assert estimate["latency"] == 0.0

    def test_its_predictor_encodes_with_a_name_that_numpy_has_removed(self, spos):
        config = dict(type="MetricPredictor", handler_cfg=dict(type="CartsHandler"))
        predictor = registry.TASK_UTILS.build(dict(config, search_groups=spos.mutator.search_groups))
        with pytest.raises(AttributeError, match="int"):
            predictor.model2vector(spos.mutator.sample_choices())

    def test_its_gaussian_process_fails_on_todays_numpy(self):
        pytest.importorskip("pydacefit", reason="pip install 'pss_razor[predictor]'")
        handler = registry.TASK_UTILS.build(dict(type="GaussProcessHandler", regr="constant"))
        points = np.random.default_rng(0).random((12, 2))
        with pytest.raises(ValueError, match="0d arrays"):
            handler.fit(points, points.sum(axis=1))
        compat.mend_predictor_handler(handler)
        handler.fit(points, points.sum(axis=1))
        np.testing.assert_allclose(handler.predict(points)[:, 0], points.sum(axis=1), rtol=1e-3)

    def test_its_mlp_needs_mmdet(self, monkeypatch):
        from mmrazor.models.task_modules.predictor.handler import mlp_handler
        from mmrazor.utils import get_placeholder

        monkeypatch.setattr(mlp_handler, "SmoothL1Loss", get_placeholder("mmdet"))
        handler = mlp_handler.MLPHandler(epochs=2)
        points = np.random.default_rng(0).random((12, 2))
        with pytest.raises(ImportError, match="mmdet"):
            handler.fit(points, points.sum(axis=1))
        compat.mend_predictor_handler(handler)
        handler.fit(points, points.sum(axis=1))
        assert handler.predict(points).shape == (12, 1)

    def test_fused_sgd_fails_where_a_parameter_comes_late(self):
        parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, fused=True)
        parameters[0].grad = torch.ones(2)
        optimizer.step()
        parameters[1].grad = torch.ones(2)
        with pytest.raises(TypeError):
            optimizer.step()


def test_mmengine_removes_only_its_own_default_hooks(tmp_path):
    """``default_hooks=dict(name=None)`` is an assertion for any other name."""
    runner = object.__new__(Runner)
    runner._hooks = []
    with pytest.raises(AssertionError):
        runner.register_default_hooks({"random_state": None})
    hooks = {"random_state": None, "checkpoint": None, "timer": dict(type="IterTimerHook")}
    assert compat.removed_default_hooks(hooks) == ["random_state"]


def test_downloading_has_no_public_name_in_mmcls(tmp_path, monkeypatch):
    from pss_razor.datasets import FashionMNIST

    from mmcls.datasets import FashionMNIST as Original
    from mmcls.datasets import mnist

    assert not hasattr(Original, "download")
    fetched = []
    monkeypatch.setattr(mnist, "download_and_extract_archive", lambda url, **how: fetched.append((url, how)))
    dataset = FashionMNIST(str(tmp_path), test_mode=True, download=False, lazy_init=True)
    compat.download(dataset)
    assert [how["filename"] for _, how in fetched] == [
        f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ]
    assert all(url.endswith(how["filename"]) and how["download_root"] == str(tmp_path) for url, how in fetched)
