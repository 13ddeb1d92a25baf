"""Export the best subnet of each pool as a static network."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pss_razor.core import ExportError
from pss_razor.deploy import load_subnet, save_subnet, trace_static, write_manifest
from pss_razor.engine.bn_calibration import set_bn_statistics
from pss_razor.engine.pool_evaluator import PoolEvaluator
from pss_razor.engine.results import primary_metric
from pss_razor.models import PSS
from pss_razor.version import __version__

# Of the largest logit. Static and dynamic convolutions add up in different orders.
MAX_PARITY_ERROR = 1e-5


class WithoutResize(nn.Module):
    """The classifier after its input resizer: a static network resizes by itself what is not its resolution."""

    def __init__(self, architecture: nn.Module) -> None:
        super().__init__()
        self.backbone = architecture.backbone
        self.neck = architecture.neck if architecture.neck is not None else nn.Identity()
        self.head = architecture.head

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        return self.head(self.neck(self.backbone(images)))


def export_subnets(
    evaluator: PoolEvaluator, records: Sequence[dict[str, Any]], batch: Any, directory: Path
) -> list[dict[str, Any]]:
    """Write static networks and their manifest.

    Args:
        evaluator: Calibrates BN; its algorithm has the trained weights.
        records: The subnets, one for each pool, as :func:`best_of_pools` chooses them.
        batch: Validation images on which each exported network, read back from its files, is compared.
        directory: Gets a folder for each subnet, and ``manifest.json`` last, when all are complete.

    Returns:
        The manifest's entries.

    Raises:
        ExportError: An exported network's logits differ from the supernet's by more than 1e-5 of the largest logit.
    """
    algorithm = evaluator.algorithm
    entries = []
    with evaluator.isolated(), torch.no_grad():
        images = algorithm.data_preprocessor(batch, False)["inputs"]
        for record in tqdm(records, "export", unit="subnet", leave=False):
            subnet = record["subnet"]
            set_bn_statistics(algorithm, evaluator.calibrate(subnet))  # leaves the subnet active
            resolution = subnet.get("resolution", images.shape[-1])
            folder = directory / record["name"]
            files = save_subnet(trace_static(WithoutResize(algorithm.architecture), resolution), folder)
            expected = algorithm(images, mode="tensor")
            difference = (load_subnet(folder).to(images.device)(images) - expected).abs().max()
            parity_error = float(difference / expected.abs().max())
            if not parity_error <= MAX_PARITY_ERROR:
                raise ExportError(
                    f"{folder}: its logits differ from the supernet's by {parity_error:.3g} of the largest logit, more "
                    f"than {MAX_PARITY_ERROR}; please report the architecture"
                )
            metric = primary_metric(record)
            entries.append(
                {
                    "metric": record["metric"],
                    "target": record["target"],
                    "resource": record["resources"][record["metric"]],
                    "resources": record["resources"],
                    "accuracy": record["metrics"][metric],
                    "accuracy_metric": metric,
                    "selected_by": "validation accuracy",
                    "score": record["score"],
                    **algorithm.space.to_record(subnet),
                    "resolution": resolution,
                    "files": {kind: f"{folder.name}/{name}" for kind, name in files.items()},
                    "parity_error": parity_error,
                }
            )
    manifest = {
        "format": 1,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {"pss_razor": __version__, "torch": str(torch.__version__)},
        "preprocessing": describe_preprocessing(algorithm),
        "subnets": entries,
    }
    write_manifest(directory, manifest)
    return entries


def describe_preprocessing(algorithm: PSS) -> dict[str, Any]:
    """What a user of the exported networks does to 8-bit images (N, 3, H, W) before calling them."""
    preprocessor = algorithm.data_preprocessor
    normalized = getattr(preprocessor, "_enable_normalize", False)
    return {
        "channel_order": "RGB" if getattr(preprocessor, "to_rgb", False) else "as loaded by cv2 (BGR)",
        "mean": preprocessor.mean.flatten().tolist() if normalized else [0.0, 0.0, 0.0],
        "std": preprocessor.std.flatten().tolist() if normalized else [1.0, 1.0, 1.0],
        "formula": "(image - mean) / std, pixel values 0 to 255",
    }
