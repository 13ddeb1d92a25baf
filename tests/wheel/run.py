"""What a user gets without the checkout: ``python tests/wheel/run.py`` builds wheel and sdist and tries them.

The sdist goes into an empty environment with the base dependencies, where a bundle runs; the wheel, with its extra
``train``, into another, where commands train, test, export and predict in an empty folder, configs by name.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MINE = """_base_ = "pss_razor::pss/pss_mbv2_cpu_digits.py"

default_hooks = dict(subnet_sampler=dict(pool_size=3))
"""
RUNTIME = """
import sys
import torch
from pss_razor.deploy import AdaptiveModel
model = AdaptiveModel.load("export/bundle.safetensors")
model.select()
logits = model(torch.load("images.pt"))
assert logits.shape == (2, 10) and torch.isfinite(logits).all()
torch.save(logits, sys.argv[1])
loaded = {name.partition(".")[0] for name in sys.modules} & {"torchvision", "mmengine", "mmcv", "mmcls", "mmrazor"}
assert not loaded, loaded
"""


class Environment:
    """A virtual environment, and a folder outside the checkout to work in."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        if not (path / "bin" / "python").exists():
            venv.create(path, with_pip=True)

    def install(self, *arguments: str) -> None:
        """``pip install`` with the arguments."""
        self.run("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)

    def run(self, program: str, *arguments: str, fails: bool = False) -> str:
        """Run a program of the environment; returns what it printed.

        Raises:
            SystemExit: It failed, or did not although it should.
        """
        names = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
        environment = {key: value for key, value in os.environ.items() if key not in names} | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(self.path / "bin" / program), *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if (done.returncode != 0) is not fails:
            sys.exit(f"{program} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
        return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """Wheel and sdist of a copy of the checkout, without what was built there before."""
    source = folder / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "work_dirs", "build", "dist", "*.egg-info", "__pycache__", "data"
    )
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    command = [sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"python -m build failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


def try_training(trained: Environment) -> None:
    """Train an epoch by name, test, export, predict; a config of one's own on a shipped one; a tool."""
    trained.run("pss-train", "no_such_config", fails=True)
    options = ("--cfg-options", "train_cfg.max_epochs=1", "param_scheduler.end=1", "train_cfg.val_interval=2")
    print(trained.run("pss-train", "pss_mbv2_flops_digits", "--dry-run").split("\n\n")[-2])
    trained.run("pss-train", "pss_mbv2_flops_digits", "--work-dir", "work", *options)
    trained.run(
        "pss-test",
        "pss_mbv2_flops_digits",
        "work/epoch_1.pth",
        "--work-dir",
        "work",
        "--cfg-options",
        "test_cfg.top_k=1",
    )
    results = json.loads((trained.folder / "work" / "pool_results.json").read_text())
    arguments = ("work/epoch_1.pth", "--work-dir", "work", "--results", "work/pool_results.json", "--out-dir", "export")
    settings = ("--formats", "torch,bundle", "--cfg-options", "test_cfg.top_k=1")
    print(trained.run("pss-export", "pss_mbv2_flops_digits", *arguments, *settings).splitlines()[-1])
    trained.run("python", "-c", "import cv2, numpy; cv2.imwrite('seven.png', numpy.zeros((8, 8, 3), numpy.uint8))")
    print(trained.run("pss-predict", "export/bundle.safetensors", "seven.png", "--topk", "2").splitlines()[0])
    (trained.folder / "mine.py").write_text(MINE)
    printed = trained.run("pss-train", "mine.py", "--print-config")
    assert "mobilenet_v2_32px_cpu.json" in printed and "pool_size=3" in printed, printed[-3000:]
    trained.run("pss-train", "mine.py", "--dry-run")
    document = (ROOT / "docs" / "your_data.md").read_text()
    (trained.folder / "flowers.py").write_text(document.split("```python\n")[1].split("```")[0])
    printed = trained.run("pss-train", "flowers.py", "--print-config")
    wanted = ("data_root='data/flowers'", "num_classes=3", "work_dir = 'work_dirs/flowers'")
    assert all(words in printed for words in wanted), printed[-6000:]
    trained.run("pss-latency", "--help")
    tool = (
        trained.run("python", "-c", "import pss_razor; print(pss_razor.__path__[0])").strip() + "/.mim/tools/train.py"
    )
    trained.run("python", tool, "mine.py", "--print-config")
    assert len(results["subnets"]) >= 3
    trained.run("python", "-c", "import torch; torch.save(torch.rand(2, 3, 32, 32), 'images.pt')")
    trained.run("python", "-c", RUNTIME, "logits_train.pt")


def try_runtime(runtime: Environment) -> None:
    """A bundle gives the logits that it gave where it was made; what needs more says which extra has it."""
    runtime.run("python", "-c", RUNTIME, "logits.pt")
    compare = "import torch; assert (torch.load('logits.pt') - torch.load('logits_train.pt')).abs().max() < 1e-4"
    runtime.run("python", "-c", compare)
    assert "pip install 'pss_razor[train]'" in runtime.run("pss-train", "pss_mbv2_flops", fails=True)
    assert "pip install Pillow" in runtime.run("pss-predict", "export/bundle.safetensors", "seven.png", fails=True)
    installed = runtime.run("python", "-m", "pip", "list", "--format", "freeze")
    assert not any(name in installed for name in ("torchvision", "mmengine", "mmcv", "tqdm", "matplotlib")), installed


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, install, try."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-venv", type=Path, help="where the training environment is left (default: nowhere)")
    parser.add_argument("--torch", nargs="*", default=[], help="requirements instead of those of constraints.txt")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel, sdist = build(folder)
        print(f"built {wheel.name} ({wheel.stat().st_size / 1e3:.0f} kB), {sdist.name}")
        work = folder / "work"
        work.mkdir()
        constraints = folder / "constraints.txt"
        lines = (ROOT / "constraints.txt").read_text().splitlines()
        constraints.write_text("\n".join(line for line in lines if not (args.torch and line.startswith("torch"))))
        trained = Environment((args.train_venv or folder / "venv_train").resolve(), work)
        trained.install("-c", str(constraints), *args.torch, f"{wheel}[train]")
        # A machine without a screen lacks the libraries that opencv-python links.
        trained.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", "opencv-python")
        trained.install("-c", str(constraints), "--no-deps", "opencv-python-headless")
        try_training(trained)
        runtime = Environment(folder / "venv_runtime", work)
        torch = [
            requirement for requirement in args.torch if requirement.startswith("torch") and "vision" not in requirement
        ]
        runtime.install("-c", str(constraints), *torch, str(sdist))
        try_runtime(runtime)
    print("the wheel and the sdist work without the checkout")


if __name__ == "__main__":
    main()
