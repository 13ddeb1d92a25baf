"""Images in one folder a class, with errors that say what is expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pss_razor.core import DataError
from pss_razor.registry import DATASETS

from mmcls.datasets import CustomDataset


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmcls' ``CustomDataset`` of ``data_root/data_prefix/<class>/<image>``, checked before anything is built.

    Args:
        data_root: Folder of the dataset.
        data_prefix: Folder of this split below it.
        **kwargs: Of ``CustomDataset``.

    Raises:
        DataError: The folder is missing, has no class folders, or these have no images.

    Example:
        ``dataset=dict(type='ImageFolder', data_root='data/imagenet', data_prefix='train', pipeline=[…])``
    """

    def __init__(self, data_root: str, data_prefix: str, **kwargs: Any) -> None:
        folder = Path(data_root, data_prefix)
        layout = f"expected is {folder}/<class>/<image>.JPEG, one folder a class; set data_root to where the images are"
        if not folder.is_dir():
            raise DataError(f"dataset folder {folder} does not exist; {layout}")
        if not any(child.is_dir() for child in folder.iterdir()):
            raise DataError(f"dataset folder {folder} has no class folders; {layout}")
        try:
            super().__init__(data_root=data_root, data_prefix=data_prefix, **kwargs)
        except RuntimeError as error:
            if "Found 0 files" not in str(error):
                raise
            raise DataError(f"the class folders of {folder} have no images; {layout}") from error
