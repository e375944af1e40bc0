"""Loading of images, with one clear error for a broken file."""
from typing import Optional

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from remax_mm.panoptic_format import read_image


@TRANSFORMS.register_module()
class LoadImageStrict(BaseTransform):
    """Load an image; a broken file is an error that names it.

    mmcv's ``LoadImageFromFile`` fails with an assertion, or skips the image silently (``ignore_empty``). Here
    ``skip_broken`` of the dataset decides whether broken images are skipped.

    Required keys: ``img_path``, and for the expected size ``height`` and ``width``, which images without a
    dataset do not have. Added keys: ``img`` (H, W, 3) uint8 in the order B, G, R, ``img_shape``,
    ``ori_shape``.

    Args:
        backend_args: Arguments of the file backend, see :func:`mmengine.fileio.get`.

    Raises:
        FileNotFoundError: the file does not exist.
        BrokenFileError: the file is not a regular file, cannot be decoded, or is damaged or incomplete.
        ValueError: the image does not have the size in the JSON.
    """

    def __init__(self, backend_args: Optional[dict] = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add the image to ``results``."""
        size = (results['height'], results['width']) if 'height' in results else None
        results['img'] = read_image(results['img_path'], self.backend_args, size)
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(backend_args={self.backend_args})'
