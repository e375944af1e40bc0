"""Fusion of mask slots into a panoptic map, instances and a semantic map."""
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

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


def fuse_panoptic(class_logits: Tensor,
                  mask_logits: Tensor,
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
        mask_logits: (N, H, W) at the size of the map.
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
    probability = mask_logits.float().softmax(dim=0)  # (N, H, W)
    own = probability > pixel_threshold
    own_area = own.flatten(1).sum(1)  # (N,)
    mask_scores = (probability * own).flatten(1).sum(1) / own_area.clamp(min=1)
    order_scores = class_scores**class_order_weight * mask_scores**mask_order_weight

    # Only confident slots with pixels are used; only these are copied to the host, in one transfer.
    confident = class_scores > torch.where(categories < num_things, thing_threshold, stuff_threshold)
    order = order_scores.argsort(descending=True, stable=True)
    order = order[(confident & (own_area > 0))[order]]
    rows = torch.stack([order, categories[order], own_area[order]], dim=1).tolist()
    scores = (class_scores * mask_scores)[order].tolist()

    segment_map = torch.zeros(mask_logits.shape[1:], dtype=torch.int32, device=mask_logits.device)
    segments: List[Segment] = []
    stuff_ids: Dict[int, int] = {}
    for (slot, category, area), score in zip(rows, scores):
        free = own[slot] & (segment_map == 0)
        if int(free.sum()) <= overlap_threshold * area:
            continue
        is_thing = category < num_things
        segment_id = len(segments) + 1 if is_thing else stuff_ids.setdefault(category, len(segments) + 1)
        segment_map[free] = segment_id
        if segment_id > len(segments):
            segments.append(Segment(segment_id, category, is_thing, score))
    return drop_small_segments(segment_map, segments, thing_area, stuff_area)


def drop_small_segments(segment_map: Tensor, segments: Sequence[Segment], thing_area: int,
                        stuff_area: int) -> Tuple[Tensor, List[Segment]]:
    """Set segments below their area limit to void and renumber the others.

    Args:
        segment_map: (H, W) with 0 for void and the segments' ids.
        thing_area, stuff_area: minimum number of pixels of a segment.
    """
    areas = torch.bincount(segment_map.flatten().long(), minlength=len(segments) + 1).tolist()
    kept = [s for s in segments if areas[s.id] >= max(thing_area if s.is_thing else stuff_area, 1)]
    if len(kept) == len(segments):
        return segment_map, list(segments)
    new_ids = segment_map.new_zeros(len(segments) + 1)
    for new_id, segment in enumerate(kept, start=1):
        new_ids[segment.id] = new_id
    kept = [segment._replace(id=new_id) for new_id, segment in enumerate(kept, start=1)]
    return new_ids[segment_map.long()], kept


def fuse_instances(class_logits: Tensor,
                   mask_logits: Tensor,
                   *,
                   num_things: int,
                   pixel_threshold: float = 0.4,
                   max_per_image: int = 100) -> InstanceData:
    """The (slot, thing class) pairs with the highest scores as instances, which may overlap.

    Args:
        class_logits: (N, K + 1).
        mask_logits: (N, H, W).
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

    probability = mask_logits.float().softmax(dim=0)  # (N, H, W)
    own = probability > pixel_threshold
    mask_scores = (probability * own).flatten(1).sum(1) / (own.flatten(1).sum(1) + 1e-6)
    masks = own[slots]
    return InstanceData(
        masks=masks, scores=scores * mask_scores[slots], labels=labels, bboxes=mask2bbox(masks))


def fuse_semantic(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """The class with the highest summed probability at every pixel; no pixel is void.

    Args:
        class_logits: (N, K + 1).
        mask_logits: (N, H, W).

    Returns:
        (H, W) int64 in [0, K).
    """
    classes = class_logits.float().softmax(-1)[:, :-1]  # (N, K)
    probability = mask_logits.float().softmax(dim=0)  # (N, H, W)
    return torch.einsum('nk,nhw->khw', classes, probability).argmax(dim=0)


def restore_size(mask_logits: Tensor, input_size: Tuple[int, int], image_size: Tuple[int, int],
                 output_size: Optional[Tuple[int, int]]) -> Tensor:
    """Resize the mask logits of one image from mask stride to the size of the image.

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

    def panoptic_postprocess(self, mask_cls: Tensor, mask_pred: Tensor) -> PixelData:
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

    def instance_postprocess(self, mask_cls: Tensor, mask_pred: Tensor) -> InstanceData:
        """See :func:`fuse_instances`."""
        return fuse_instances(
            mask_cls,
            mask_pred,
            num_things=self.num_things_classes,
            pixel_threshold=self.test_cfg.get('pixel_threshold', 0.4),
            max_per_image=self.test_cfg.get('max_per_image', 100))

    def semantic_postprocess(self, mask_cls: Tensor, mask_pred: Tensor) -> PixelData:
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
        """
        results = []
        for class_logits, mask_logits, sample in zip(mask_cls_results, mask_pred_results, batch_data_samples):
            # One image at a time: N masks at full size are the largest tensor of inference.
            mask_logits = restore_size(mask_logits.float(), sample.batch_input_shape, sample.img_shape[:2],
                                       sample.ori_shape[:2] if rescale else None)
            result = {}
            if self.test_cfg.get('panoptic_on', True):
                result['pan_results'] = self.panoptic_postprocess(class_logits, mask_logits)
            if self.test_cfg.get('instance_on', False):
                result['ins_results'] = self.instance_postprocess(class_logits, mask_logits)
            if self.test_cfg.get('semantic_on', False):
                result['sem_results'] = self.semantic_postprocess(class_logits, mask_logits)
            results.append(result)
        return results


@MODELS.register_module()
class KMaXFusionHead(PanopticFusionHead):
    """Fusion head of kMaX-DeepLab: mask-wise merging, see :func:`fuse_panoptic`."""

    PANOPTIC_KEYS = ('thing_threshold', 'stuff_threshold', 'pixel_threshold', 'overlap_threshold',
                     'class_order_weight', 'mask_order_weight', 'thing_area', 'stuff_area')
    fuse = staticmethod(fuse_panoptic)
