"""MMRazor's registries, which this plugin adds to. Import them from here: the stack is mended first."""

from pss_razor import compat
from pss_razor.core import check_extra

check_extra("train", "mmengine", "mmcv", "mmcls", "mmrazor", "torchvision")
compat.apply()

from mmengine.registry import FUNCTIONS  # noqa: E402
from mmrazor.registry import (  # noqa: E402
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODEL_WRAPPERS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    TASK_UTILS,
    TRANSFORMS,
    VISUALIZERS,
)

__all__ = [
    "DATASETS",
    "DATA_SAMPLERS",
    "FUNCTIONS",
    "HOOKS",
    "LOOPS",
    "METRICS",
    "MODELS",
    "MODEL_WRAPPERS",
    "OPTIMIZERS",
    "OPTIM_WRAPPERS",
    "OPTIM_WRAPPER_CONSTRUCTORS",
    "TASK_UTILS",
    "TRANSFORMS",
    "VISUALIZERS",
]
