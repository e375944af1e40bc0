"""Copy-paste augmentation: segments of another image are pasted onto an image and its index map."""
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
    """Paste the chosen segments of ``source`` onto ``target``.

    Stuff of the same class becomes one segment. The table of the result contains exactly the visible
    segments, those of the target first.

    Args:
        target: Image to paste onto; it is not changed.
        source: Image of the same size that the segments are from.
        chosen: (S,) bool, the segments of ``source`` to paste.
    """
    labels = np.concatenate([target.labels, source.labels])
    is_thing = np.concatenate([target.is_thing, source.is_thing])

    # Map each segment to its row in the joint table, and segments that are not chosen to void.
    row = _merge_stuff(labels, is_thing)
    row_of_target, row_of_source = np.split(row, [len(target.labels)])
    joint_type = np.min_scalar_type(len(row))
    pasted = _look_up(np.where(chosen, row_of_source, 0), source.segment_map, joint_type)
    mask = (pasted > 0).view(np.uint8)
    segment_map = cv2.copyTo(pasted, mask, _look_up(row_of_target, target.segment_map, joint_type))
    image = cv2.copyTo(_copy(source.image), mask, _copy(target.image))

    # Remove covered segments from the table.
    visible = cv2.calcHist([segment_map], [0], None, [len(row) + 1], [0, len(row) + 1]).ravel()[1:] > 0
    return SegmentedImage(
        image=image,
        segment_map=_look_up(visible.cumsum() * visible, segment_map, np.min_scalar_type(visible.sum())),
        labels=labels[visible],
        is_thing=is_thing[visible])


def _merge_stuff(labels: np.ndarray, is_thing: np.ndarray) -> np.ndarray:
    """(S,) index, from 1, of the first segment of the same stuff class; of a thing, its own index."""
    index = np.arange(1, len(labels) + 1)
    _, first, group = np.unique(labels[~is_thing], return_index=True, return_inverse=True)
    index[~is_thing] = index[~is_thing][first][group]
    return index


def _look_up(new_index: np.ndarray, segment_map: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Replace the indices 1..S of a map by ``new_index`` (S,); void stays 0."""
    table = np.zeros(max(len(new_index) + 1, 256), dtype)
    table[1:len(new_index) + 1] = new_index
    # cv2.LUT is five times as fast as numpy, but supports only uint8 indices.
    return cv2.LUT(segment_map, table) if segment_map.dtype == np.uint8 else table[segment_map]


def _copy(image: np.ndarray) -> np.ndarray:
    """Contiguous copy; numpy is slow for the negative stride of an image that mmcv has flipped."""
    return cv2.flip(image[:, ::-1], 1) if image.strides[1] < 0 else np.ascontiguousarray(image).copy()


def choose_segments(labels: np.ndarray, is_thing: np.ndarray) -> np.ndarray:
    """Choose all things, and k random classes of the n stuff classes, with k uniform in [0, n].

    deeplab2 (data/sample_generator.py) draws k for all ids of the map and uses the stuff among them. The
    distribution is the same: if the count in the whole set is uniform, so is the count in each subset.

    Returns:
        (S,) bool.
    """
    stuff = np.unique(labels[~is_thing])
    kept = np.random.permutation(stuff)[:np.random.randint(len(stuff) + 1)]
    return is_thing | np.isin(labels, kept)


@TRANSFORMS.register_module()
class PanopticCopyPaste(BaseTransform):
    """Paste all things and some stuff of another image of the dataset, the partner (kMaX-DeepLab, ECCV 2022).

    This is the last augmentation: image and partner have been resized, cropped and flipped independently.
    deeplab2 halves the scales of the partner, and pastes onto every image (data/sample_generator.py). Crowd
    regions, which deeplab2 pastes as void, are not pasted.

    Required keys: ``img``, ``gt_seg_map``, ``gt_segment_labels``, ``gt_segment_is_thing``, ``sample_idx``,
    and ``dataset``, which :class:`PanopticMapDataset` adds in training. Changes the first four.

    Args:
        partner_pipeline: Steps that turn a record of the dataset into an image with ground truth, of the same
            size as the image that it is pasted onto.

    Raises:
        ValueError: the dataset is missing or has only one image, or the partner has another size.
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
        """Paste onto the image; if the partner is None, return None, and the dataset draws another image."""
        partner = self._load_partner(results)
        if partner is None:
            return None
        target, source = _read(results), _read(partner)
        if source.image.shape != target.image.shape:
            raise ValueError(f'Expected the pipeline of the partner {partner["img_path"]} to give the shape '
                             f'{target.image.shape} of {results["img_path"]}, but got {source.image.shape}')

        (results['img'], results['gt_seg_map'], results['gt_segment_labels'],
         results['gt_segment_is_thing']) = paste_segments(target, source, self._choose_segments(source))
        return results

    def _load_partner(self, results: dict) -> Optional[dict]:
        dataset = results.get('dataset')
        if dataset is None or len(dataset) < 2:
            found = 'none' if dataset is None else f'one with {len(dataset)} image'
            raise ValueError(
                'Expected a dataset with at least two images in `dataset` for PanopticCopyPaste, as '
                f'PanopticMapDataset adds it in training, but got {found}')
        return self.partner_pipeline(
            dataset.get_data_info(self._draw_other(len(dataset), results['sample_idx'])))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(partner_pipeline={self.partner_pipeline})'


def _read(results: dict) -> SegmentedImage:
    return SegmentedImage(results['img'], results['gt_seg_map'], results['gt_segment_labels'],
                          results['gt_segment_is_thing'])
