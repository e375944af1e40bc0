"""Fusion of mask slots into instances, and the base of the fusion heads."""
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from mmdet.evaluation import INSTANCE_OFFSET
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmdet.structures import SampleList
from mmdet.structures.mask import mask2bbox
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from .fuse_semantic import fuse_semantic
from .mask_merging import collect_masks
from .mask_rows import MaskRows, as_rows, restored_rows


class Segment(NamedTuple):
    """One segment of a fused panoptic map.

    Attributes:
        id: value in the map, starting at 1.
        category: class in [0, K).
        is_thing: whether the class is a thing.
        score: class probability times mean mask probability in [0, 1]; that of the first slot if several
            slots of stuff were merged.
    """
    id: int
    category: int
    is_thing: bool
    score: float


def drop_small_segments(segments: Sequence[Segment], areas: Sequence[int], thing_area: int,
                        stuff_area: int) -> Tuple[List[int], List[Segment]]:
    """Drop segments below their area limit and renumber the others.

    Args:
        segments: with the ids 1, 2, ...
        areas: number of pixels of each segment.
        thing_area, stuff_area: minimum number of pixels of a segment.

    Returns:
        The new ids of 0 (void) and of all segments, which are 0 for dropped segments; the remaining segments
        with their new ids.
    """
    new_ids: List[int] = [0]
    kept: List[Segment] = []
    for segment, area in zip(segments, areas):
        is_kept = area >= max(thing_area if segment.is_thing else stuff_area, 1)
        if is_kept:
            kept.append(segment._replace(id=len(kept) + 1))
        new_ids.append(len(kept) if is_kept else 0)
    return new_ids, kept


@torch.no_grad()
def fuse_instances(class_logits: Tensor,
                   mask_logits: Union[Tensor, MaskRows],
                   *,
                   num_things: int,
                   pixel_threshold: float = 0.4,
                   max_per_image: int = 100) -> InstanceData:
    """The (slot, thing class) pairs with the highest scores as instances, which may overlap.

    Args:
        class_logits: (N, K + 1).
        mask_logits: (N, H, W), or its rows.
        pixel_threshold: softmax over slots that an instance's pixels must exceed.
        max_per_image: number of pairs considered, including stuff (as in kmax_deeplab/kmax_model.py).

    Returns:
        ``masks`` (n, H, W) bool, ``scores`` (n,) in [0, 1], ``labels`` (n,), ``bboxes`` (n, 4) as x1, y1,
        x2, y2.
    """
    class_scores = class_logits.float().softmax(-1)[:, :-1]  # (N, K)
    num_classes = class_scores.shape[1]
    scores, pairs = class_scores.flatten().topk(min(max_per_image, class_scores.numel()))
    slots, labels = pairs // num_classes, pairs % num_classes
    things = labels < num_things
    scores, slots, labels = scores[things], slots[things], labels[things]

    rows = as_rows(mask_logits)
    used, used_index = slots.unique(return_inverse=True)
    masks = torch.empty((len(slots), *rows.shape[1:]), dtype=torch.bool, device=rows.device)

    def add_rows(strip: slice, used_masks: Tensor) -> None:
        masks[:, strip] = used_masks.index_select(0, used_index)

    areas, sums = collect_masks(rows, used, pixel_threshold, add_rows)
    mask_scores = sums.float() / (areas + 1e-6)
    return InstanceData(
        masks=masks, scores=scores * mask_scores[used_index], labels=labels, bboxes=mask2bbox(masks))


def check_finite_logits(class_logits: Tensor, mask_logits: Tensor, data_samples: SampleList) -> None:
    """Raise an error if a logit is infinite or NaN; a map made of such logits would be void.

    It needs one synchronization with the device for the batch.

    Args:
        class_logits: (B, N, K + 1).
        mask_logits: (B, N, h, w).
        data_samples: the images, named by their ``img_path``.

    Raises:
        FloatingPointError: a logit is not finite; names the images.
    """
    extremes = [
        extreme(logits.flatten(1), dim=1) for logits in (class_logits, mask_logits)
        for extreme in (torch.amin, torch.amax)
    ]
    is_finite = torch.stack([extreme.float() for extreme in extremes]).isfinite().all(0).tolist()
    wrong = [
        sample.get('img_path', 'unknown') for sample, finite in zip(data_samples, is_finite) if not finite
    ]
    if wrong:
        raise FloatingPointError(f'Expected finite class and mask logits, but the model predicts NaN or '
                                 f'infinity for {wrong}')


class PanopticFusionHead(MaskFormerFusionHead):
    """mmdet's fusion head for masks that compete in a softmax over slots.

    ``test_cfg`` takes ``panoptic_on`` (True), ``instance_on`` (False), ``semantic_on`` (False),
    ``max_per_image`` (100) and the thresholds of ``fuse`` by their names.

    A subclass defines ``fuse``, a function of class logits (N, K + 1), mask logits (N, H, W), ``num_things``
    and thresholds that returns a map and its segments, and lists these thresholds in ``PANOPTIC_KEYS``.

    Raises:
        ValueError: an unknown key in ``test_cfg``.
    """

    PANOPTIC_KEYS: Tuple[str, ...]
    OTHER_KEYS = ('panoptic_on', 'instance_on', 'semantic_on', 'max_per_image')
    fuse: Callable[..., Tuple[Tensor, List[Segment]]]

    def __init__(self,
                 num_things_classes: int,
                 num_stuff_classes: int,
                 test_cfg: Optional[ConfigDict] = None,
                 init_cfg: Optional[ConfigDict] = None) -> None:
        test_cfg = dict(test_cfg or {})
        unknown = sorted(set(test_cfg) - set(self.PANOPTIC_KEYS) - set(self.OTHER_KEYS))
        if unknown:
            raise ValueError(f'Expected keys of `test_cfg` among {self.PANOPTIC_KEYS + self.OTHER_KEYS}, '
                             f'but got {unknown}.')
        super().__init__(num_things_classes, num_stuff_classes, test_cfg, init_cfg=init_cfg)

    def panoptic_postprocess(self, mask_cls: Tensor, mask_pred: Union[Tensor, MaskRows]) -> PixelData:
        """``sem_seg`` (1, H, W) int32 in mmdet's encoding, label + 1000 * instance with void K; the metainfo
        ``segments_info`` lists its segments."""
        options = {key: self.test_cfg[key] for key in self.PANOPTIC_KEYS if key in self.test_cfg}
        segment_map, segments = self.fuse(mask_cls, mask_pred, num_things=self.num_things_classes, **options)

        values = [self.num_classes]
        for segment in segments:
            values.append(segment.category + (INSTANCE_OFFSET * segment.id if segment.is_thing else 0))
        encoded = segment_map.new_tensor(values).index_select(0, segment_map.flatten()).view_as(segment_map)
        segments_info = [
            dict(id=value, label=s.category, is_thing=s.is_thing, score=s.score)
            for s, value in zip(segments, values[1:])
        ]
        return PixelData(sem_seg=encoded[None], metainfo=dict(segments_info=segments_info))

    def instance_postprocess(self, mask_cls: Tensor, mask_pred: Union[Tensor, MaskRows]) -> InstanceData:
        """See :func:`fuse_instances`."""
        return fuse_instances(
            mask_cls,
            mask_pred,
            num_things=self.num_things_classes,
            pixel_threshold=self.test_cfg.get('pixel_threshold', 0.4),
            max_per_image=self.test_cfg.get('max_per_image', 100))

    def semantic_postprocess(self, mask_cls: Tensor, mask_pred: Union[Tensor, MaskRows]) -> PixelData:
        """``sem_seg`` (1, H, W), see :func:`fuse_semantic`."""
        return PixelData(sem_seg=fuse_semantic(mask_cls, mask_pred)[None])

    def predict(self,
                mask_cls_results: Tensor,
                mask_pred_results: Tensor,
                batch_data_samples: SampleList,
                rescale: bool = False) -> List[dict]:
        """Fuse every image of a batch, at its original size if ``rescale``.

        Args:
            mask_cls_results: (B, N, K + 1) class logits.
            mask_pred_results: (B, N, h, w) mask logits at mask stride.

        Returns:
            For each image a dict with ``pan_results``, ``ins_results`` and ``sem_results`` as configured.

        Raises:
            FloatingPointError: see :func:`check_finite_logits`.
        """
        check_finite_logits(mask_cls_results, mask_pred_results, batch_data_samples)
        results = []
        for class_logits, mask_logits, sample in zip(mask_cls_results, mask_pred_results, batch_data_samples):
            masks = restored_rows(mask_logits, sample.batch_input_shape, sample.img_shape[:2],
                                  sample.ori_shape[:2] if rescale else None)
            result = {}
            if self.test_cfg.get('panoptic_on', True):
                result['pan_results'] = self.panoptic_postprocess(class_logits, masks)
            if self.test_cfg.get('instance_on', False):
                result['ins_results'] = self.instance_postprocess(class_logits, masks)
            if self.test_cfg.get('semantic_on', False):
                result['sem_results'] = self.semantic_postprocess(class_logits, masks)
            results.append(result)
        return results
