"""mmcv's image loader, with one clear error for a broken file."""
from typing import Optional

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS

from remax_mm.panoptic_format import read_image


@TRANSFORMS.register_module()
class LoadImageStrict(LoadImageFromFile):
    """Load an image, or say which file is broken.

    mmcv's class has an assertion here, or drops the image silently (``ignore_empty``). Whether broken images
    are left out is the choice of the dataset, ``skip_broken``.

    Required keys: ``img_path``. Added keys: ``img`` (H, W, 3), ``img_shape``, ``ori_shape``.

    Args:
        to_float32: whether the image becomes float32 instead of uint8.
        color_type, imdecode_backend: ``flag`` and ``backend`` of :func:`mmcv.imfrombytes`.
        backend_args: arguments of the file backend, see :func:`mmengine.fileio.get`.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: it cannot be decoded, or ends too early.
    """

    def __init__(self,
                 to_float32: bool = False,
                 color_type: str = 'color',
                 imdecode_backend: str = 'cv2',
                 backend_args: Optional[dict] = None) -> None:
        super().__init__(to_float32, color_type, imdecode_backend, backend_args=backend_args)

    def transform(self, results: dict) -> dict:
        """Add the image to ``results``."""
        image = read_image(results['img_path'], self.backend_args, self.color_type, self.imdecode_backend)
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results
