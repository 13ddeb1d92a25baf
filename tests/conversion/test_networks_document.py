"""The code of docs/networks.md, as it is printed there, on smaller images and without downloads."""

from __future__ import annotations

import re
from pathlib import Path

import torch

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "networks.md").read_text(), re.DOTALL)


def test_plain(capsys):
    code = BLOCKS[0].replace("224, 224", "64, 64").replace("[160, 192, 224]", "[32, 48, 64]")
    names: dict = {}
    exec(code, names)
    assert "layer4.1.conv1 (channels)" in capsys.readouterr().out
    assert names["logits"].shape == (2, 1000) and isinstance(names["static"], torch.nn.Module)
    expected = names["model"].eval()(names["images"])
    names["supernet"].activate(names["supernet"].space.largest)
    assert (names["supernet"].eval()(names["images"]) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_config(tmp_path):
    from pss_razor.engine.launch import load_config
    from pss_razor.registry import MODELS

    code = BLOCKS[1].replace('weights="IMAGENET1K_V1"', "weights=None").replace("[128, 160, 192, 224]", "[32, 64]")
    (tmp_path / "mine.py").write_text(code)
    algorithm = MODELS.build(load_config(str(tmp_path / "mine.py"), None, "none", None).model)
    (constraint,) = algorithm.constraints
    assert len(constraint.targets) == 20 and algorithm.space.size > 10**12
