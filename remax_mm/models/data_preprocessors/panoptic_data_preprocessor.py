"""Data preprocessor that pads to sides of 32k + 1 pixels, in training and at test."""
from typing import List, Optional, Sequence, Tuple, Union

import torch.nn.functional as F
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmengine.structures import PixelData
from torch import Tensor

from remax_mm.structures import VOID_SEGMENT
from ..layers import not_compiled
from ..task_modules import note_largest_values

STRIDE = 32
"""The coarsest stride. Features are aligned at the corners, so sizes are multiples of it plus 1."""


def next_aligned_size(size: int) -> int:
    """The smallest 32k + 1, k >= 1, that is not less than ``size``."""
    return max(-(-(size - 1) // STRIDE), 1) * STRIDE + 1


@MODELS.register_module()
class PanopticDataPreprocessor(DetDataPreprocessor):
    """Normalize and pad at the bottom and the right, to the same size in training and at test.

    mmdet's class pads to a fixed size in training only. Images come in OpenCV's channel order B, G, R. The
    padding is 0 after normalization. Segment maps are padded with void in training; at test the ground truth
    keeps its original size.

    The copies to the device do not wait for it if the data loader has ``pin_memory=True``.

    Sets the metainfo ``batch_input_shape`` and ``pad_shape`` to the padded (H, W).

    Args:
        pad_size: Side, or (H, W), of the padded images, each 32k + 1. None pads to the next 32k + 1 of the
            largest image of the batch.
        mean: Mean of R, G and B; kMaX-DeepLab uses 127.5 for all, not the values of ImageNet.
        std: Standard deviation of R, G and B.

    Raises:
        ValueError: ``pad_size`` is not 32k + 1, or an image is larger.
    """

    def __init__(
        self,
        pad_size: Union[int, Sequence[int], None] = None,
        mean: Sequence[float] = (127.5, 127.5, 127.5),
        std: Sequence[float] = (127.5, 127.5, 127.5)
    ) -> None:
        # Channels are swapped below: mmengine's way copies a list of indices to the device and waits for it.
        super().__init__(mean=mean, std=std, pad_value=0, non_blocking=True)
        self.pad_size: Optional[Tuple[int, int]] = None
        if pad_size is not None:
            sides = (pad_size, pad_size) if isinstance(pad_size, int) else tuple(pad_size)
            if len(sides) != 2 or any(side != next_aligned_size(side) for side in sides):
                raise ValueError(
                    'Expected `pad_size` to be one or two sides of 32k + 1 pixels, such as 641 or '
                    f'1281, but got {pad_size}')
            self.pad_size = (sides[0], sides[1])

    @not_compiled
    def forward(self, data: dict, training: bool = False) -> dict:
        """Convert collated ``inputs`` (3, h, w) uint8 and ``data_samples`` to a batch (B, 3, H, W).

        Args:
            data: Output of the data loader; ``data_samples`` may be missing.
            training: Whether segment maps are padded too.
        """
        height, width = self._padded_size(data)
        for sample in data.get('data_samples') or ():
            if training and 'gt_panoptic_seg' in sample:
                note_largest_values(sample)  # before the sample is moved to the device
        data = self.cast_data(data)
        images = data['inputs']
        data['inputs'] = images.flip(1) if isinstance(images, Tensor) else [x.flip(0) for x in images]
        data = super().forward(data, training)
        inputs, data_samples = data['inputs'], data['data_samples']
        data['inputs'] = F.pad(inputs, (0, width - inputs.shape[-1], 0, height - inputs.shape[-2]))
        for sample in data_samples or ():
            sample.set_metainfo(dict(batch_input_shape=(height, width), pad_shape=(height, width)))
            if training and 'gt_panoptic_seg' in sample:
                segment_map = pad_with_void(sample.gt_panoptic_seg.segment_map, height, width)
                sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
        return data

    def _padded_size(self, data: dict) -> Tuple[int, int]:
        images: List[Tensor] = list(data['inputs'])
        if self.pad_size is None:
            height, width = (max(image.shape[axis] for image in images) for axis in (-2, -1))
            return next_aligned_size(height), next_aligned_size(width)
        samples = data.get('data_samples') or [None] * len(images)
        for image, sample in zip(images, samples):
            if image.shape[-2] > self.pad_size[0] or image.shape[-1] > self.pad_size[1]:
                name = 'an image' if sample is None else sample.get('img_path')
                raise ValueError(
                    f'Expected images of at most {self.pad_size} (height, width), the `pad_size`, but {name} '
                    f'is {tuple(image.shape[-2:])}: resize or crop in the pipeline')
        return self.pad_size


def pad_with_void(segment_map: Tensor, height: int, width: int) -> Tensor:
    """Pad a segment map (1, h, w) with void at the bottom and the right to (1, height, width)."""
    missing = (0, width - segment_map.shape[-1], 0, height - segment_map.shape[-2])
    return F.pad(segment_map, missing, value=VOID_SEGMENT)
