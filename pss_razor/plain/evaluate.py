"""Measure the subnets of what was trained without a config file."""

from __future__ import annotations

from torch.utils.data import DataLoader

from pss_razor import compat
from pss_razor.core import ConfigError
from pss_razor.engine.loops import PoolTestLoop
from pss_razor.evaluation.measured_pools import MeasuredPools
from pss_razor.plain.fit import FitResult, accuracy_config
from pss_razor.plain.labelled_loader import check_labelled_loader

from mmengine.dist import get_world_size
from mmengine.registry import DefaultScope


def evaluate(
    trained: FitResult, loader: DataLoader, *, top_k: int = 5, calibration_batches: int = 9, amp: bool = False
) -> MeasuredPools:
    """Measure each pool's best subnets, the largest and the smallest, as ``pss-test`` does.

    BN is calibrated for each on training images; then all run on each batch, so that images are read once. The best
    of a pool is chosen on the ``val_loader`` of :func:`~pss_razor.plain.fit.fit` where it was given one, else on
    ``loader``. ``pool_results.json`` and a picture for each metric are left in the ``work_dir``.

    Args:
        trained: What :func:`~pss_razor.plain.fit.fit` returned; it stays as it is.
        loader: Images to measure on, with labels.
        top_k: How many subnets of each pool, best scores first.
        calibration_batches: Training batches that BN statistics are averaged over.
        amp: Evaluate in mixed precision.

    Raises:
        ConfigError: An argument cannot work.
        DataError: The loader has no batch, or labels that are no classes.
    """
    if not isinstance(trained, FitResult):
        raise ConfigError(
            f"evaluate takes what pss_razor.fit returned, not a {type(trained).__name__}; of a training that has ended "
            "before, fit(…, resume=True) with the same arguments returns it at once"
        )
    check_labelled_loader(trained.supernet, loader, "loader", get_world_size())
    with DefaultScope.overwrite_default_scope("mmrazor"), compat.runs_on(trained.device):
        loop = PoolTestLoop(
            trained.runner,
            loader,
            accuracy_config(trained.supernet.num_outputs),
            fp16=amp,
            top_k=top_k,
            calibration_batches=calibration_batches,
            selection_dataloader=trained.val_loader,
        )
        compat.set_test_loop(trained.runner, loop)
        loop.run()
    return MeasuredPools(loop)
