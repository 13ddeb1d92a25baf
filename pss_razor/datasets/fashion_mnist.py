"""Fashion-MNIST from wherever its files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pss_razor import compat
from pss_razor.core import DataError
from pss_razor.datasets.idx_file import read_idx_file
from pss_razor.registry import DATASETS

from mmcls import datasets as mmcls_datasets
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

_SIDE = 28
# Where the Debian package dataset-fashion-mnist puts the files.
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@DATASETS.register_module()
class FashionMNIST(mmcls_datasets.FashionMNIST):
    """60,000 training and 10,000 test images of clothes, 28 × 28 pixels in ten classes (arXiv 1708.07747).

    Images are 8-bit with three equal channels, so that pipelines for colour images work. The four files are taken
    gzipped or not, from ``data_prefix``, from ``FashionMNIST/raw`` below it, where torchvision puts them, or from
    Debian's package ``dataset-fashion-mnist``; they are downloaded into ``data_prefix`` if none of these has any.

    Args:
        data_prefix: The folder.
        test_mode: Whether these are the test images.
        span: The first image and the one after the last, of the files' order; None takes all.
        padding: Black pixels that are added on each side.
        download: Whether to download what is not there.
        **kwargs: Of mmcls' ``FashionMNIST``: ``pipeline``, ``indices``, which count within ``span``, …

    Raises:
        DataError: A file is missing or damaged, or there are fewer images than ``span`` says.

    Example:
        ``dataset=dict(type='FashionMNIST', data_prefix='data/fashion_mnist', test_mode=False, span=(0, 50000),
        pipeline=[…])``
    """

    def __init__(
        self,
        data_prefix: str,
        test_mode: bool,
        span: tuple[int, int] | None = None,
        padding: int = 0,
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        if span is not None and not (len(span) == 2 and 0 <= span[0] < span[1]):
            raise DataError(f"span = {span} must be the first image and, behind it, the one after the last: (0, 50000)")
        if padding < 0:
            raise DataError(f"padding = {padding} must not be negative")
        self.span = None if span is None else tuple(span)
        self.padding = padding
        super().__init__(data_prefix=data_prefix, test_mode=test_mode, download=download, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Images (28 + 2 · padding, the same, 3) uint8 and labels."""
        folder = self._find_folder()
        files = self.test_list if self.test_mode else self.train_list
        most = 10_000 if self.test_mode else 60_000
        images_file, labels_file = (self._find_file(folder, name) for name, _ in files)
        images = read_idx_file(images_file, (most, _SIDE, _SIDE))
        labels = read_idx_file(labels_file, (most,))
        if len(images) != len(labels) or labels.max(initial=0) >= len(self.METAINFO["classes"]):
            raise DataError(
                f"{images_file} has {len(images)} images, {labels_file} {len(labels)} labels up to "
                f"{labels.max(initial=0)}; remove both and get them again"
            )
        first, end = self.span or (0, len(images))
        if end > len(images):
            raise DataError(f"span = {self.span}: {images_file} has {len(images)} images; choose a smaller end")
        pad = (self.padding, self.padding)
        images = np.pad(images[first:end], ((0, 0), pad, pad))
        return [
            self._sample(image, int(label)) for image, label in zip(images, labels[first:end].tolist(), strict=True)
        ]

    @staticmethod
    def _sample(image: np.ndarray, label: int) -> dict[str, Any]:
        colored = image[..., None].repeat(3, axis=2)
        return dict(img=colored, img_shape=image.shape, ori_shape=image.shape, gt_label=label)

    def _find_folder(self) -> Path:
        """The folder of the files, into which they are downloaded if need be."""
        root = Path(self.data_prefix["root"]).expanduser()
        folders = (root, root / "FashionMNIST" / "raw", _DEBIAN)
        names = [name for name, _ in self.train_list + self.test_list]

        def first_with_files() -> Path | None:
            return next((folder for folder in folders if any(_forms(folder, name) for name in names)), None)

        if self.download and is_main_process() and first_with_files() is None:
            try:
                compat.download(self)
            except (OSError, RuntimeError) as error:
                raise DataError(
                    f"Fashion-MNIST cannot be downloaded into {root} ({error}); put {', '.join(names)} there, or "
                    "install Debian's dataset-fashion-mnist"
                ) from error
        barrier()
        folder = first_with_files()
        if folder is None:
            raise DataError(
                f"Fashion-MNIST is not in {root}; set data_prefix to the folder of {', '.join(names)}, or download=True"
            )
        if folder != root:
            print_log(f"Fashion-MNIST is taken from {folder}", logger="current")
        return folder

    @staticmethod
    def _find_file(folder: Path, name: str) -> Path:
        forms = _forms(folder, name)
        if not forms:
            raise DataError(
                f"{folder} has neither {name} nor {name.removesuffix('.gz')}, though other files of Fashion-MNIST; put "
                "it there, or empty the folder to download all"
            )
        return forms[0]

    def extra_repr(self) -> list[str]:
        """Folder and part, for logs."""
        return [*super().extra_repr(), f"Images: \t{'all' if self.span is None else self.span}"]


def _forms(folder: Path, name: str) -> list[Path]:
    """The files that a gzipped one may be, of those that are there: unpacked, as it is."""
    return [path for path in (folder / name.removesuffix(".gz"), folder / name) if path.is_file()]
