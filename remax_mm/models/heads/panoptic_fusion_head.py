"""Fusion of mask slots into a panoptic map, instances and a semantic map."""
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from mmdet.evaluation import INSTANCE_OFFSET
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.mask import mask2bbox
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from ..layers import resize_to
from .mask_merging import PAIRS_ABOVE, MaskMerging, PairMerging
from .mask_rows import MaskRows, as_rows, restored_rows

MINOR_CLASS_PROBABILITY = 0.02
"""A slot is void for a semantic map if none of its classes is more probable."""
SUM_ROUNDING = 1e-4
"""More than rounding can change in a sum of probabilities."""


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


class Candidate(NamedTuple):
    """A mask that may become a segment.

    Attributes:
        mask: number of the mask.
        category: class in [0, K).
        area: number of its pixels.
        score: class probability times mean mask probability in [0, 1].
    """
    mask: int
    category: int
    area: int
    score: float


@torch.no_grad()
def fuse_panoptic(class_logits: Tensor,
                  mask_logits: Union[Tensor, MaskRows],
                  *,
                  num_things: int,
                  thing_threshold: float = 0.7,
                  stuff_threshold: float = 0.5,
                  pixel_threshold: float = 0.4,
                  overlap_threshold: float = 0.8,
                  class_order_weight: float = 1.0,
                  mask_order_weight: float = 1.0,
                  thing_area: int = 0,
                  stuff_area: int = 0) -> Tuple[Tensor, List[Segment]]:
    """Paste the masks onto an empty map, most confident slot first (mask-wise merging of kMaX-DeepLab).

    deeplab2 model/post_processor/max_deeplab.py; thresholds are strict as in bytedance/kmax-deeplab
    kmax_deeplab/kmax_model.py. A rejected slot occupies no pixels; all stuff of one class is one segment.

    Args:
        class_logits: (N, K + 1), things, stuff, then void.
        mask_logits: (N, H, W) at the size of the map, or its rows.
        num_things: number of thing classes; they come first.
        thing_threshold, stuff_threshold: class probability that a slot must exceed.
        pixel_threshold: softmax over slots that a slot's own pixels must exceed.
        overlap_threshold: fraction of a slot's own pixels that must be exceeded by those still free.
        class_order_weight, mask_order_weight: exponents of class and mean mask probability in the order.
        thing_area, stuff_area: minimum number of pixels of a thing segment and of a merged stuff segment.

    Returns:
        Map (H, W) int32 with 0 for void, and its segments in the order of their ids 1, 2, ...
    """
    class_scores, categories = class_logits.float().softmax(-1)[:, :-1].max(-1)  # (N,)
    confident = class_scores > torch.where(categories < num_things, thing_threshold, stuff_threshold)
    slots = confident.nonzero().flatten()
    rows = as_rows(mask_logits)
    if len(slots) == 0:
        return torch.zeros(rows.shape[1:], dtype=torch.int32, device=rows.device), []

    merging_class = PairMerging if pixel_threshold > PAIRS_ABOVE else MaskMerging
    merging = merging_class(len(slots), rows.shape[1:], rows.device)
    areas, sums = collect_masks(rows, slots, pixel_threshold, merging.add_rows)

    # Copy what the host needs, in the order in which the masks are pasted.
    class_scores, mask_scores = class_scores[slots], (sums / areas.clamp(min=1)).float()
    order_scores = class_scores**class_order_weight * mask_scores**mask_order_weight
    order = order_scores.argsort(descending=True, stable=True)
    columns = (order, categories[slots][order], areas[order], (class_scores * mask_scores)[order])
    table = merging.to_host(torch.stack([column.double() for column in columns], dim=1)).tolist()
    candidates = [
        Candidate(int(mask), int(category), int(area), score) for mask, category, area, score in table
    ]

    segments, segment_areas = paste_masks(merging, candidates, num_things, overlap_threshold)
    new_ids, segments = drop_small_segments(segments, segment_areas, thing_area, stuff_area)
    return merging.segment_map(new_ids), segments


def collect_masks(rows: MaskRows, slots: Tensor, pixel_threshold: float,
                  add_rows: Callable[[slice, Tensor], None]) -> Tuple[Tensor, Tensor]:
    """Binary masks of some slots, in strips of rows.

    Args:
        rows: mask logits of all slots, which compete in the softmax.
        slots: (n,) indices.
        pixel_threshold: softmax over slots that the pixels of a mask must exceed.
        add_rows: gets each strip and its rows of the masks, (n, rows, W) bool.

    Returns:
        Area of each mask (n,) int64, and the sum of its probability over its pixels (n,) float64. The sum is
        exact for thresholds that fusion uses, so that it does not depend on the strips.
    """
    areas = torch.zeros(len(slots), dtype=torch.int64, device=rows.device)
    sums = torch.zeros(len(slots), dtype=torch.float64, device=rows.device)
    for strip, logits in rows:
        probability = logits.softmax(dim=0)[slots]
        own = probability > pixel_threshold
        areas += own.sum((1, 2))
        sums += (probability * own).sum((1, 2), dtype=torch.float64)
        add_rows(strip, own)
    return areas, sums


def paste_masks(merging: Union[MaskMerging, PairMerging], candidates: Sequence[Candidate], num_things: int,
                overlap_threshold: float) -> Tuple[List[Segment], List[int]]:
    """Paste each mask of which enough pixels are free.

    Args:
        merging: holds the masks; the accepted ones are pasted there.
        candidates: in the order of pasting.
        num_things, overlap_threshold: see :func:`fuse_panoptic`.

    Returns:
        The segments and their areas.
    """
    segments: List[Segment] = []
    areas: List[int] = []
    stuff_ids: Dict[int, int] = {}
    for mask, category, area, score in candidates:
        free_area = merging.free_area(mask)
        if area == 0 or free_area <= overlap_threshold * area:
            continue
        is_thing = category < num_things
        segment_id = len(segments) + 1 if is_thing else stuff_ids.setdefault(category, len(segments) + 1)
        merging.paste(mask, segment_id)
        if segment_id > len(segments):
            segments.append(Segment(segment_id, category, is_thing, score))
            areas.append(0)
        areas[segment_id - 1] += free_area
    return segments, areas


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
        masks[:, strip] = used_masks[used_index]

    areas, sums = collect_masks(rows, used, pixel_threshold, add_rows)
    mask_scores = sums.float() / (areas + 1e-6)
    return InstanceData(
        masks=masks, scores=scores * mask_scores[used_index], labels=labels, bboxes=mask2bbox(masks))


@torch.no_grad()
def fuse_semantic(class_logits: Tensor, mask_logits: Union[Tensor, MaskRows]) -> Tensor:
    """The class with the highest summed probability at every pixel; no pixel is void.

    Args:
        class_logits: (N, K + 1).
        mask_logits: (N, H, W), or its rows.

    Returns:
        (H, W) int64 in [0, K).
    """
    classes = class_logits.float().softmax(-1)[:, :-1]  # (N, K)
    rows = as_rows(mask_logits)
    semantic_map = torch.empty(rows.shape[1:], dtype=torch.int64, device=rows.device)
    for strip, logits in rows:
        with torch.autocast(rows.device.type, enabled=False):
            labels = most_probable_classes(classes, logits.softmax(dim=0).flatten(1))
        semantic_map[strip] = labels.view_as(semantic_map[strip])
    return semantic_map


def most_probable_classes(classes: Tensor, masks: Tensor) -> Tensor:
    """The class with the highest summed probability, ``(classes.T @ masks).argmax(0)``.

    Many slots of an image are void. The sum is first computed without them. Where their classes could change
    the result, it is computed with all slots.

    Args:
        classes: (N, K) probabilities, without void.
        masks: (N, pixels) softmax over slots.

    Returns:
        (pixels,) int64 in [0, K).
    """
    largest = classes.amax(1)  # (N,)
    is_minor = largest <= MINOR_CLASS_PROBABILITY
    major = (~is_minor).nonzero().flatten()
    scores = classes[major].T @ masks[major]  # (K, pixels)
    best, labels = first_maximum(scores)
    margin = best - scores.scatter_(0, labels[None], -1).amax(0)

    largest_change = (largest * is_minor) @ masks
    unsure = (margin <= largest_change + SUM_ROUNDING).nonzero().flatten()
    labels[unsure] = first_maximum(classes.T @ masks[:, unsure])[1]
    return labels


def first_maximum(values: Tensor) -> Tuple[Tensor, Tensor]:
    """``values.max(dim=0)`` for finite values, in less time on a CPU.

    Args:
        values: (n, ...) with n < 2^15.

    Returns:
        The maximum over n, and the first index of it, both (...).
    """
    maximum = values.amax(0)
    ranks = torch.arange(len(values), 0, -1, dtype=torch.int16, device=values.device)
    ranks = ranks.view(-1, *[1] * maximum.dim())
    return maximum, len(values) - ((values == maximum) * ranks).amax(0).long()


def restore_size(mask_logits: Tensor, input_size: Tuple[int, int], image_size: Tuple[int, int],
                 output_size: Optional[Tuple[int, int]]) -> Tensor:
    """Resize the mask logits of one image from mask stride to the size of the image.

    Fusion heads use :func:`restored_rows`, which gives the same in strips of rows.

    Args:
        mask_logits: (N, h, w).
        input_size: of the padded network input.
        image_size: of the image inside it, at the top left; the rest is padding.
        output_size: size of the result, None for ``image_size``.

    Returns:
        (N, H, W).
    """
    logits = resize_to(mask_logits[None], input_size)[..., :image_size[0], :image_size[1]]
    return (logits if output_size is None else resize_to(logits, output_size))[0]


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
        encoded = segment_map.new_tensor(values)[segment_map.long()]
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


@MODELS.register_module()
class KMaXFusionHead(PanopticFusionHead):
    """Fusion head of kMaX-DeepLab: mask-wise merging, see :func:`fuse_panoptic`."""

    PANOPTIC_KEYS = ('thing_threshold', 'stuff_threshold', 'pixel_threshold', 'overlap_threshold',
                     'class_order_weight', 'mask_order_weight', 'thing_area', 'stuff_area')
    fuse = staticmethod(fuse_panoptic)
