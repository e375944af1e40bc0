"""Copy-paste for panoptic segmentation: segments of another image, laid over this one and its index map."""
from typing import NamedTuple, Optional, Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS
from mmengine.dataset import Compose


class SegmentedImage(NamedTuple):
    """An image with its ground truth.

    Attributes:
        image: (H, W, 3) uint8.
        segment_map: (H, W) uint8 or uint16 in [0, S], 0 is void.
        labels: (S,) int64 in [0, K), the class of segment i + 1.
        is_thing: (S,) bool.
    """
    image: np.ndarray
    segment_map: np.ndarray
    labels: np.ndarray
    is_thing: np.ndarray


def paste_segments(target: SegmentedImage, source: SegmentedImage, chosen: np.ndarray) -> SegmentedImage:
    """Lay the chosen segments of ``source`` over ``target``.

    What they cover of the target's segments is lost; void of the source covers nothing. Stuff of one class
    becomes one segment. The table keeps the segments that are visible, those of the target first, so that map
    and table hold the same segments.

    Args:
        target: Image to paste on; it is not changed.
        source: Image of the same size to take segments from.
        chosen: (S,) bool, the segments of ``source`` to paste.
    """
    labels = np.concatenate([target.labels, source.labels])
    is_thing = np.concatenate([target.is_thing, source.is_thing])

    # Where each segment goes in the joint table: stuff to the first of its class, what is not chosen to void.
    row = _merge_stuff(labels, is_thing)
    row_of_target, row_of_source = np.split(row, [len(target.labels)])
    joint_type = np.min_scalar_type(len(row))
    pasted = _look_up(np.where(chosen, row_of_source, 0), source.segment_map, joint_type)
    mask = (pasted > 0).view(np.uint8)
    segment_map = cv2.copyTo(pasted, mask, _look_up(row_of_target, target.segment_map, joint_type))
    image = cv2.copyTo(_copy(source.image), mask, _copy(target.image))

    # Segments that nothing is left of leave the table.
    visible = cv2.calcHist([segment_map], [0], None, [len(row) + 1], [0, len(row) + 1]).ravel()[1:] > 0
    return SegmentedImage(
        image=image,
        segment_map=_look_up(visible.cumsum() * visible, segment_map, np.min_scalar_type(visible.sum())),
        labels=labels[visible],
        is_thing=is_thing[visible])


def _merge_stuff(labels: np.ndarray, is_thing: np.ndarray) -> np.ndarray:
    """Of each segment the index, from 1 on, of the first stuff of its class, or its own if a thing; (S,)."""
    index = np.arange(1, len(labels) + 1)
    _, first, group = np.unique(labels[~is_thing], return_index=True, return_inverse=True)
    index[~is_thing] = index[~is_thing][first][group]
    return index


def _look_up(new_index: np.ndarray, segment_map: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The map with ``new_index`` (S,) of each segment, as ``dtype``; void stays 0."""
    table = np.zeros(max(len(new_index) + 1, 256), dtype)
    table[1:len(new_index) + 1] = new_index
    # OpenCV, which looks up bytes alone, takes a fifth of the time.
    return cv2.LUT(segment_map, table) if segment_map.dtype == np.uint8 else table[segment_map]


def _copy(image: np.ndarray) -> np.ndarray:
    """A contiguous copy. mmcv mirrors images by a negative stride, from which numpy copies pixel by pixel."""
    return cv2.flip(image[:, ::-1], 1) if image.strides[1] < 0 else np.ascontiguousarray(image).copy()


def choose_segments(labels: np.ndarray, is_thing: np.ndarray) -> np.ndarray:
    """All things, and of n classes of stuff a random choice of k, with k uniform in [0, n]; (S,) bool.

    deeplab2 (data/sample_generator.py) draws k for all ids of the map and keeps the stuff among them, which
    is the same: where counts of a whole are uniform, so are those of each part.
    """
    stuff = np.unique(labels[~is_thing])
    kept = np.random.permutation(stuff)[:np.random.randint(len(stuff) + 1)]
    return is_thing | np.isin(labels, kept)


@TRANSFORMS.register_module()
class PanopticCopyPaste(BaseTransform):
    """Paste all things and some stuff of another image of the dataset (kMaX-DeepLab, ECCV 2022).

    It is the last augmentation: image and partner have been resized, cropped and flipped, each with random
    numbers of its own. deeplab2 takes half the range of scales for the partner, and pastes on every image
    (data/sample_generator.py). Crowds, which deeplab2 pastes as void, stay behind.

    Required keys: ``img``, ``gt_seg_map``, ``gt_segment_labels``, ``gt_segment_is_thing``, ``sample_idx``,
    and ``dataset``, which :class:`PanopticMapDataset` adds in training. Changes the first four.

    Args:
        partner_pipeline: Steps from a record of the dataset to an image of the same size with ground truth.

    Raises:
        ValueError: the dataset is missing or holds a single image, or the partner is of another size.
    """

    def __init__(self, partner_pipeline: Sequence[dict]) -> None:
        self.partner_pipeline = Compose(partner_pipeline)

    @cache_randomness
    def _draw_other(self, count: int, index: int) -> int:
        other = np.random.randint(count - 1)
        return other + (other >= index)

    @cache_randomness
    def _choose_segments(self, source: SegmentedImage) -> np.ndarray:
        return choose_segments(source.labels, source.is_thing)

    def transform(self, results: dict) -> Optional[dict]:
        """Paste on the image; None, for which the dataset draws another sample, if the partner is None."""
        partner = self._load_partner(results)
        if partner is None:
            return None
        target, source = _read(results), _read(partner)
        if source.image.shape != target.image.shape:
            raise ValueError(
                f'Expected the partner {partner["img_path"]} to leave its pipeline with the shape '
                f'{target.image.shape} of {results["img_path"]}, but got {source.image.shape}')

        (results['img'], results['gt_seg_map'], results['gt_segment_labels'],
         results['gt_segment_is_thing']) = paste_segments(target, source, self._choose_segments(source))
        return results

    def _load_partner(self, results: dict) -> Optional[dict]:
        dataset = results.get('dataset')
        if dataset is None or len(dataset) < 2:
            count = 'none' if dataset is None else f'one of {len(dataset)} image'
            raise ValueError(
                'Expected a dataset of at least two images in `dataset`, as PanopticMapDataset adds '
                f'it in training, for PanopticCopyPaste, but got {count}')
        return self.partner_pipeline(
            dataset.get_data_info(self._draw_other(len(dataset), results['sample_idx'])))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(partner_pipeline={self.partner_pipeline})'


def _read(results: dict) -> SegmentedImage:
    return SegmentedImage(results['img'], results['gt_seg_map'], results['gt_segment_labels'],
                          results['gt_segment_is_thing'])
