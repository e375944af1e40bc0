"""Comparison of an exported model with the detector that it comes from."""
from pathlib import Path
from typing import Any, List, NamedTuple, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import Tensor

from remax_mm.models.heads import RelaxationMixin
from remax_mm.models.heads.mask_rows import restored_rows
from remax_mm.panoptic_format import number_segments
from .remax_runtime import PanopticModel, describe, merge

MIN_EQUAL = 0.999
"""Fraction of pixels that must be equal in float32."""
MIN_EQUAL_FLOAT16 = 0.99


class Agreement(NamedTuple):
    """How well an exported model agrees with its detector on one image.

    Attributes:
        best_slots: fraction of pixels with the same best slot.
        panoptic_map: fraction of pixels with the same segment.
    """
    best_slots: float
    panoptic_map: float


def check_onnx(model: Any, file: Union[str, Path], images: Sequence[np.ndarray],
               min_equal: float) -> List[Agreement]:
    """Compare a file with the detector on images.

    Args:
        model: detector in eval mode, ``nn.Module``.
        file: written by :func:`export_onnx`.
        images: (H, W, 3) uint8 RGB.
        min_equal: fraction of equal pixels that is required of each image.

    Raises:
        ValueError: they disagree.
    """
    exported = PanopticModel(file)
    results = [compare(model, exported, image) for image in images]
    for number, result in enumerate(results):
        if min(result) < min_equal:
            raise ValueError(
                f'Expected at least {min_equal:.1%} of the pixels to be equal in the exported model and in '
                f'PyTorch, but image {number} has {result.best_slots:.3%} equal best slots and '
                f'{result.panoptic_map:.3%} equal segments')
    return results


@torch.no_grad()
def compare(model: Any, exported: PanopticModel, image: np.ndarray) -> Agreement:
    """Both results for an image (H, W, 3) uint8 RGB."""
    pixels = exported.resize(image)
    outputs = exported.run(pixels, image.shape[:2])
    sample = image_sample(pixels, image.shape[:2])
    data = model.data_preprocessor(dict(inputs=[to_input(pixels)], data_samples=[sample]))
    sample = data['data_samples'][0]
    logits = model.panoptic_head.predict(model.extract_feat(data['inputs']), [sample])
    expected_map = fused_map(model, logits[0], logits[1], sample)

    # The best slot of each pixel
    if exported.metadata['outputs'] == 'logits':
        predicted = [torch.from_numpy(outputs[name])[None] for name in ('class_logits', 'mask_logits')]
        predicted[1] = model_size(model, predicted[1], sample)
        expected_slots, slots = (masks[0].argmax(0).cpu().numpy() for masks in (logits[1], predicted[1]))
        return Agreement(
            float((slots == expected_slots).mean()),
            float((fused_map(model, predicted[0], predicted[1], sample) == expected_map).mean()))
    rows = restored_rows(logits[1][0], sample.batch_input_shape, sample.img_shape, sample.ori_shape)
    expected_slots = rows.whole().argmax(0).cpu().numpy()
    # Pixel-wise merging gives no slot where the best one is not confident.
    is_given = outputs['probabilities'][0] > 0
    is_equal = (outputs['slots'][0] == expected_slots) | ~is_given
    segment_map, _ = describe(*merge(outputs, exported.metadata), exported.metadata['classes'], 0.)
    return Agreement(float(is_equal.mean()), float((segment_map == expected_map).mean()))


def to_input(pixels: np.ndarray) -> Tensor:
    """An image (h, w, 3) in RGB order as the data loader gives it, (3, h, w) in OpenCV's order."""
    return torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1)))


def image_sample(pixels: np.ndarray, output_size: Tuple[int, int]) -> DetDataSample:
    """The metainfo of a resized image (h, w, 3)."""
    metas = dict(img_shape=pixels.shape[:2], ori_shape=tuple(output_size[:2]), img_path='an image')
    return DetDataSample(metainfo=metas)


def model_size(model: Any, mask_logits: Tensor, sample: DetDataSample) -> Tensor:
    """Mask logits as the head of the model returns them: mmdet's heads resize them to the input."""
    if not isinstance(model.panoptic_head, RelaxationMixin):
        return mask_logits
    return F.interpolate(mask_logits, size=sample.batch_input_shape, mode='bilinear', align_corners=False)


def fused_map(model: Any, class_logits: Tensor, mask_logits: Tensor, sample: DetDataSample) -> np.ndarray:
    """Segment ids (H, W) at the original size, numbered as by :class:`PanopticInferencer`."""
    device = next(model.parameters()).device
    results = model.panoptic_fusion_head.predict(
        class_logits.to(device), mask_logits.to(device), [sample], rescale=True)
    panoptic_map = results[0]['pan_results'].sem_seg[0].cpu().numpy()
    return number_segments(panoptic_map, model.panoptic_head.num_classes)[0]
