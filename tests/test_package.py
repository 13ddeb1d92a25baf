"""What the package holds besides modules: configs by name, the tables of OpenMMLab's mim, commands."""

from __future__ import annotations

import configparser
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pss_razor.config import config_folder, find_config, list_configs
from pss_razor.core import ConfigError, MissingPackageError, check_extra

ROOT = Path(__file__).resolve().parents[1]


class TestConfigs:
    def test_all_are_listed(self):
        files = {p for p in (ROOT / "configs").rglob("*.py") if "_base_" not in p.parts}
        assert {path.resolve() for path in list_configs().values()} == files and len(files) > 50

    @pytest.mark.parametrize(
        "name",
        [
            "pss_mbv2_flops",
            "pss_mbv2_flops.py",
            "pss/pss_mbv2_flops",
            "configs/pss/pss_mbv2_flops.py",
            "pss_razor::pss/pss_mbv2_flops.py",
        ],
    )
    def test_by_name(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert find_config(name).resolve() == ROOT / "configs" / "pss" / "pss_mbv2_flops.py"

    def test_a_file_comes_first(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("pss_mbv2_flops").touch()
        assert find_config("pss_mbv2_flops") == Path("pss_mbv2_flops")

    def test_a_misspelt_name(self):
        with pytest.raises(ConfigError, match="does not exist; did you mean pss_mbv2_flops"):
            find_config("pss_mbv2_flpos")
        with pytest.raises(ConfigError, match="the shipped ones are in"):
            find_config("/data/mine.py")

    def test_names_are_distinct(self):
        """Or a bare name could mean two."""
        names = [name.rpartition("/")[2] for name in list_configs()]
        assert len(set(names)) == len(names)


class TestMim:
    def test_tables_list_every_config(self):
        folder = ROOT / "pss_razor" / ".mim"
        listed = []
        for metafile in yaml.safe_load((folder / "model-index.yml").read_text())["Import"]:
            content = yaml.safe_load((folder / metafile).read_text())
            collections = {collection["Name"] for collection in content["Collections"]}
            for model in content["Models"]:
                assert model["In Collection"] in collections
                assert Path(model["Config"]).stem == model["Name"]
                listed.append(folder / model["Config"])
        assert sorted(listed) == sorted(list_configs().values())

    def test_links_lead_to_the_checkout(self):
        assert config_folder().resolve() == ROOT / "configs"
        assert (config_folder().parent / "tools").resolve() == ROOT / "tools"


class TestCommands:
    @pytest.fixture(scope="class")
    def setup(self):
        parser = configparser.RawConfigParser()
        parser.read(ROOT / "setup.cfg")
        return parser

    def test_each_is_a_function_of_a_tool(self, setup):
        commands = dict(
            line.split(" = ") for line in setup["options.entry_points"]["console_scripts"].split("\n") if line
        )
        assert set(commands) == {"pss-train", "pss-test", "pss-export", "pss-predict", "pss-latency"}
        tools = "\n".join(path.read_text() for path in (ROOT / "tools").rglob("*.py"))
        for target in commands.values():
            module, _, function = target.partition(":")
            assert callable(getattr(importlib.import_module(module), function))
            assert f"from {module} import {function}\n" in tools

    def test_help_needs_no_package_at_all(self):
        """Not even those of the base."""
        code = """
import sys
for name in ("torch", "numpy", "mmengine", "mmcv", "mmcls", "mmrazor"):
    sys.modules[name] = None
from importlib import import_module
sys.argv = ["pss", "--help"]
for name in ("train", "test", "export", "predict", "latency"):
    try:
        import_module("pss_razor.commands." + name).main()
    except SystemExit as end:
        assert end.code == 0
"""
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("usage: pss") == 5

    def test_the_base_installation_says_what_is_missing(self):
        code = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name.startswith("mm") else find(name, *args)
from pss_razor.commands.train import main
sys.argv = ["pss-train", "pss_mbv2_flops"]
main()
"""
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        needs = "error: this needs mmengine, mmcv, mmcls, mmrazor, not installed here: pip install 'pss_razor[train]'\n"
        assert done.returncode == 1 and done.stderr == needs


class TestFunctions:
    def test_importing_the_package_imports_nothing_slow(self):
        """Nor does asking for the functions that conversion needs; the others need OpenMMLab."""
        code = """
import sys
import pss_razor
assert not {"torch", "numpy"} & set(sys.modules)
pss_razor.convert, pss_razor.export
assert not {name for name in sys.modules if name.split(".")[0] in ("mmengine", "mmcv", "mmcls", "mmrazor")}
for name in ("mmengine", "mmcv", "mmcls", "mmrazor"):
    sys.modules[name] = None
for function in ("fit", "evaluate"):
    try:
        getattr(pss_razor, function)
    except ImportError:
        continue
    raise SystemExit(function)
"""
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def test_export_is_a_package_that_can_be_called(self):
        import pss_razor
        import pss_razor.export.formats
        from pss_razor import export

        assert export is pss_razor.export is sys.modules["pss_razor.export"]
        assert pss_razor.export.formats.BUNDLE == "bundle"
        with pytest.raises(ConfigError, match=r"export takes what pss_razor.evaluate returned, not a int"):
            pss_razor.export(3, "nowhere")

    def test_all_are_there(self):
        import pss_razor

        assert all(callable(getattr(pss_razor, name)) for name in pss_razor.__all__ if name != "__version__")
        with pytest.raises(AttributeError, match="has no attribute 'train'"):
            _ = pss_razor.train


def test_missing_package_is_an_import_error():
    check_extra("train", "numpy")
    with pytest.raises(MissingPackageError, match=r"needs no_such_package, .* pip install 'pss_razor\[x\]'") as error:
        check_extra("x", "numpy", "no_such_package")
    assert isinstance(error.value, ImportError)


@pytest.mark.parametrize(
    ("package", "code", "message"),
    [
        ("matplotlib", "import pss_razor.visualization", "drawing needs matplotlib, .*[train]"),
        (
            "onnxruntime",
            "from pss_razor.deploy import OnnxAdaptiveModel; OnnxAdaptiveModel([], {}, [])",
            "an ONNX file needs onnxruntime, .*[onnx]",
        ),
        (
            "onnx",
            "from pss_razor.estimators.latency.inference_backends import inference_backend as backend\n"
            "backend('onnxruntime', 'cpu', 1)",
            "backend onnxruntime needs onnx, .*[onnx]",
        ),
        (
            "matplotlib",
            "import runpy, sys\nsys.argv = ['demo', 'bundle', '--out', 'none']\n"
            "runpy.run_path('tools/controller_demo.py', run_name='__main__')",
            "the demonstration needs matplotlib, .*[train]",
        ),
    ],
)
def test_using_what_is_missing_says_which_extra(package, code, message):
    without = f"""
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name == {package!r} else find(name, *args)
{code}
"""
    done = subprocess.run([sys.executable, "-c", without], cwd=ROOT, capture_output=True, text=True)
    pattern = message.replace("[", r"pip install 'pss_razor\[").replace("]", r"\]'")
    assert done.returncode == 1 and re.search(pattern, done.stderr.splitlines()[-1]), done.stderr


class TestInheritance:
    @pytest.fixture
    def config_of(self, tmp_path, monkeypatch):
        from pss_razor.engine.launch import load_config

        monkeypatch.chdir(tmp_path)

        def read(text):
            (tmp_path / "mine.py").write_text(text)
            return load_config(str(tmp_path / "mine.py"), None, "none", None)

        return read

    def test_by_the_packages_name(self, config_of):
        """As from the file: no scope is added, by which mmengine would look for registries of that name."""
        from mmengine.config import Config

        mine = config_of('_base_ = "pss_razor::pss/pss_mbv2_cpu.py"\n')
        shipped = Config.fromfile(config_folder() / "pss" / "pss_mbv2_cpu.py")
        assert mine.model == shipped.model and mine.default_hooks == shipped.default_hooks
        assert "_scope_" not in str(mine.model)

    def test_by_a_wrong_name(self, config_of):
        with pytest.raises(ConfigError, match="did you mean pss_mbv2_cpu"):
            config_of('_base_ = "pss_razor::pss/pss_mbv2_cpuu.py"\n')

    def test_an_import_before_it(self, config_of):
        with pytest.raises(ConfigError, match="_base_ before any import"):
            config_of('import torch\n\n_base_ = "pss_razor::pss/pss_mbv2_cpu.py"\n')
