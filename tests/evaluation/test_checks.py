"""Settings of loops, checked without building them."""

from __future__ import annotations

import pytest

import pss_razor.plugin  # noqa: F401
from pss_razor.config import find_config
from pss_razor.core import ConfigError
from pss_razor.evaluation.checks import check_loop_settings

from mmengine.config import Config
from mmengine.runner import TestLoop


class OwnLoop(TestLoop):
    """Of a user: what it takes cannot be known."""

    def __init__(self, *args, **kwargs):
        self.times = kwargs.pop("times", 1)
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize(
    "name",
    [
        "pss_mbv2_flops_digits",
        "usnet_mbv2_flops",
        "spos_supernet_shufflenetv2_8xb128_in1k",
        "spos_evolution_search_shufflenetv2_digits",
        "cream_604_8xb128_in1k",
    ],
)
def test_shipped_configs_pass(name):
    check_loop_settings(Config.fromfile(find_config(name)))


def test_a_loop_that_takes_any_keyword_passes():
    check_loop_settings(Config(dict(test_cfg=dict(type=OwnLoop, times=3))))


def test_keys_of_mmengines_loop():
    check_loop_settings(Config(dict(val_cfg=dict(fp16=True), test_cfg=None)))
    with pytest.raises(ConfigError, match="val_cfg has 'fp_16', which ValLoop does not take; did you mean 'fp16'"):
        check_loop_settings(Config(dict(val_cfg=dict(fp_16=True))))
