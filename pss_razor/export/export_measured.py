"""Export what an evaluation has measured, without a config file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pss_razor import compat
from pss_razor.core import ConfigError
from pss_razor.deploy.preprocess import preprocess
from pss_razor.evaluation.checks import get_algorithm
from pss_razor.evaluation.measured_pools import MeasuredPools
from pss_razor.export.accuracy import measure_networks
from pss_razor.export.choice import choose_pools, choose_subnets
from pss_razor.export.exporter import export_subnets
from pss_razor.export.formats import check_formats
from pss_razor.static.static_net import IMAGE_CHANNELS

from mmengine.dist import get_world_size

_UNKNOWN = dict(channel_order=None, mean=None, std=None, resize=None, formula="as the data loader's transforms do it")


def export(
    measured: MeasuredPools,
    out_dir: str | os.PathLike[str],
    formats: Sequence[str] = ("torch", "onnx", "bundle"),
    *,
    input_size: str = "own",
    preprocessing: Mapping[str, Any] | None = None,
    jobs: int = 1,
) -> list[dict[str, Any]]:
    """Export the best subnet of each pool, as ``pss-export`` does; each file is read back and compared.

    Args:
        measured: What :func:`~pss_razor.plain.evaluate.evaluate` returned.
        out_dir: Folder for the networks, ``bundle.safetensors`` and ``manifest.json``.
        formats: Of ``"torch"``, ``"pt2"``, ``"onnx"`` and ``"bundle"``.
        input_size: What ONNX and ``.pt2`` files take: images of the subnet's ``"own"`` resolution, or of the
            ``"full"`` one.
        preprocessing: What is to be done to 8-bit images, for those who run the networks, see
            :func:`pss_razor.deploy.preprocess.preprocess`: ``mean`` and ``std`` of pixel values 0 to 255,
            ``channel_order``, ``resize``. None: it is not said, since it is in the loader's transforms.
        jobs: How many processes write networks at once. More than one need ``if __name__ == "__main__":`` in the
            program, see :class:`~pss_razor.core.Workers`.

    Returns:
        The entries of the manifest.

    Raises:
        ConfigError: There are several processes, a format is unknown, ``out_dir`` is a file, or images have not three
            channels.
        ExportError: A package is not installed, or an exported network's logits differ from the supernet's.
    """
    if not isinstance(measured, MeasuredPools):
        raise ConfigError(f"export takes what pss_razor.evaluate returned, not a {type(measured).__name__}")
    if isinstance(formats, str):
        raise ConfigError(f"formats = {formats!r} must be several, such as ('torch', 'bundle')")
    if get_world_size() > 1:
        raise ConfigError(
            f"export in one process instead of {get_world_size()}: in a program of its own, where fit(…, resume=True) "
            "returns what was trained"
        )
    check_formats(formats, f"formats = {formats}")
    if jobs < 1:
        raise ConfigError(f"jobs = {jobs} must be at least 1")
    if input_size not in ("own", "full"):
        raise ConfigError(f"input_size = {input_size!r} is not known; choose 'own' or 'full'")
    if preprocessing is not None:
        preprocess(np.zeros((8, 8, 3), np.uint8), preprocessing)  # says what is wrong
    directory = Path(out_dir)
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"out_dir = {out_dir} is a file; choose another path")
    loop = measured.loop
    channels = get_algorithm(loop.runner).architecture.backbone.supernet.image_shape[0]
    if channels != IMAGE_CHANNELS:
        raise ConfigError(
            f"the images have {channels} channels, and exported networks take {IMAGE_CHANNELS}; repeat them in the "
            "transforms, as Grayscale(3) does, and convert a network for such images"
        )
    compat.set_test_loop(loop.runner, loop)
    evaluator = loop.build_evaluator_of_pools()
    pools = choose_pools(None, evaluator.sampler.candidates(1))
    chosen = choose_subnets(evaluator, pools, measured, loop.criterion)
    return export_subnets(
        evaluator,
        chosen,
        loop.dataloader,
        directory,
        formats,
        input_size,
        criterion=loop.criterion,
        measure=lambda networks: measure_networks(loop.runner, evaluator, networks),
        preprocessing=_UNKNOWN if preprocessing is None else preprocessing,
        jobs=jobs,
    )
