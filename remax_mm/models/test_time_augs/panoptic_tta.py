"""Test-time augmentation: one panoptic prediction from several scaled and flipped views of an image.

Dense models average their outputs per pixel: mmseg's ``SegTTAModel`` averages softmax scores, and
Panoptic-DeepLab class probabilities, centers and offsets (bowenc0221/panoptic-deeplab,
segmentation/utils/test_utils.py). Mask slots cannot be averaged by index, because slot 7 of one view need not
be slot 7 of another view. Therefore the slots of each view are first matched one-to-one with the slots of the
mean of the previous views, by class and by mask. Two alternatives have disadvantages:

- Collecting the segments of all views and removing duplicates, as is done for boxes, keeps the false
  positives of every view, and each mask comes from a single view.
- A vote over final segments discards the probabilities before they are averaged.

Masks of kMaX-DeepLab are a softmax over slots, and a one-to-one matching preserves this: the joint
probability of slot and class at each pixel is averaged, and a mean of distributions is a distribution. Its
sum over the classes is the mean of the masks. Its sum over the pixels gives the classes of a slot, where the
weight of a view is the area of the slot in this view: a slot without pixels, which was matched because it was
left over, has no weight. The logarithms are used as logits in the fusion head, so that its thresholds keep
their meaning. A thing that only a minority of the views detects loses its pixels to the segments of the other
views.
"""
import copy
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.config import ConfigDict
from mmengine.model import BaseTTAModel
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..data_preprocessors.panoptic_data_preprocessor import STRIDE, next_aligned_size
from ..heads.mask_rows import FlippedRows, MaskRows, SoftmaxRows, restored_rows
from ..heads.panoptic_fusion_head import PanopticFusionHead, check_finite_logits

FLIPPED_AXES = dict(horizontal=(-1, ), vertical=(-2, ), diagonal=(-2, -1))


class SlotProbabilities(NamedTuple):
    """Class and mask probabilities of the slots for one image, at its original size.

    Attributes:
        classes: (N, K + 1), the sum of each slot is 1.
        masks: (N, H, W), the sum over the slots is 1 at each pixel.
    """
    classes: Tensor
    masks: Tensor


class SlotRows(NamedTuple):
    """Like :class:`SlotProbabilities`, with masks (N, H, W) that are computed in strips of rows."""
    classes: Tensor
    masks: MaskRows


class View(NamedTuple):
    """The prediction of one view of an image."""
    sample: DetDataSample
    slots: SlotRows


def match_slots(mean: SlotProbabilities, view: SlotRows) -> Tensor:
    """Match the slots of a view one-to-one with the slots of the mean, with the largest total similarity.

    The similarity of a pair is the probability that samples of both have the same class (void is a class
    here), times the soft Dice 2 sum(p q) / (sum(p^2) + sum(q^2)) of their masks, which is 1 for equal masks
    only.

    Returns:
        (N,) int64, the view's slot for each slot of the mean.
    """
    num_slots = len(mean.masks)
    intersection = mean.masks.new_zeros(num_slots, num_slots)
    mean_squares, view_squares = mean.masks.new_zeros(2, num_slots)
    with torch.autocast(mean.masks.device.type, enabled=False):
        for strip, view_rows in view.masks:
            mean_masks, view_masks = mean.masks[:, strip].flatten(1), view_rows.flatten(1)  # (N, pixels)
            intersection += torch.einsum('np,mp->nm', mean_masks, view_masks)
            mean_squares += torch.einsum('np,np->n', mean_masks, mean_masks)
            view_squares += torch.einsum('mp,mp->m', view_masks, view_masks)
        squares = mean_squares[:, None] + view_squares
        mask_similarity = 2 * intersection / squares.clamp(min=torch.finfo(squares.dtype).tiny)
        class_similarity = torch.einsum('nk,mk->nm', mean.classes, view.classes)
    _, slots = linear_sum_assignment((class_similarity * mask_similarity).cpu().numpy(), maximize=True)
    return torch.from_numpy(slots).to(mean.masks.device)


def add_view(mean: SlotProbabilities, view: SlotRows, num_views: int) -> None:
    """Add one view to a mean, in place.

    Args:
        mean: mean of the previous views; becomes the mean of ``num_views`` views.
        view: slots of the new view in any order.
        num_views: number of views including the new one.
    """
    slots = match_slots(mean, view)
    mean_slots = slots.argsort()  # of the view's slots
    area, view_area = mean.masks.sum((1, 2)), torch.zeros_like(mean.masks[:, 0, 0])
    for strip, masks in view.masks:
        view_area += masks.sum((1, 2))
        mean.masks[:, strip].mul_((num_views - 1) / num_views).index_add_(
            0, mean_slots, masks, alpha=1 / num_views)  # without a reordered copy

    # For slots without pixels in any view, all views have the same weight.
    area, view_area = area + 1e-6, view_area[slots] + 1e-6
    share = view_area / ((num_views - 1) * area + view_area)
    mean.classes.lerp_(view.classes[slots], share[:, None])


def scaled_canvas(pad_size: Sequence[int], plain_size: Sequence[int],
                  view_size: Sequence[int]) -> Tuple[int, int]:
    """Padded size of a view: the padded size of the plain view, scaled like the image, in sides of 32k + 1.

    Args:
        pad_size: (height, width) to which the plain view is padded.
        plain_size: (height, width) of the plain view's image.
        view_size: (height, width) of this view's image.
    """
    scale = max(view_size) / max(plain_size)
    scaled = (round((side - 1) * scale / STRIDE) * STRIDE + 1 for side in pad_size)
    height, width = (max(side, next_aligned_size(inner)) for side, inner in zip(scaled, view_size))
    return height, width


@MODELS.register_module()
class PanopticTTAModel(BaseTTAModel):
    """Average the slots of several views of an image, then fuse them like the slots of one view.

    Views come from mmcv's ``TestTimeAug`` in ``tta_pipeline``. The first view must have the plain size, which
    is the size in the test pipeline. It is padded as usual; views of other scales are padded to
    :func:`scaled_canvas`. A single view without flip gives exactly the plain prediction.

    Views and images are processed one after the other. At the original size, only the masks of the mean are
    in memory, for any number of views; those of a view are computed in strips of rows, once to match its
    slots and once to add them.

    Args:
        module: config of a detector with a :class:`PanopticFusionHead`, or the detector.
        data_preprocessor: replaces the data preprocessor of the detector if given.

    Raises:
        TypeError: the detector has another fusion head, so its masks may not be a softmax over slots.
    """

    def __init__(self, module: ConfigDict, data_preprocessor: Optional[ConfigDict] = None) -> None:
        super().__init__(module, data_preprocessor)
        fusion_head = getattr(self.module, 'panoptic_fusion_head', None)
        if not isinstance(fusion_head, PanopticFusionHead):
            raise TypeError(
                'Expected a detector with a PanopticFusionHead, whose masks compete in a softmax over '
                f'slots, but {type(self.module).__name__} has {type(fusion_head).__name__}')

    @torch.no_grad()
    def test_step(self, data: dict) -> SampleList:
        """Predict a batch.

        Args:
            data: ``inputs`` and ``data_samples``, each a list (views) of lists (images).

        Returns:
            The data samples of the first view, with the merged results of all views.
        """
        inputs, data_samples = data['inputs'], data['data_samples']
        if len(inputs) == 1 and not any(sample.get('flip', False) for sample in data_samples[0]):
            return self.module.test_step(dict(inputs=inputs[0], data_samples=data_samples[0]))
        return self.merge_preds([
            self._predict_views(images, samples) for images, samples in zip(zip(*inputs), zip(*data_samples))
        ])

    def merge_preds(self, data_samples_list: List[Iterator[View]]) -> SampleList:
        """Merge the views of each image; unlike in the parent class, they are computed one at a time."""
        return [self._merge_views(views) for views in data_samples_list]

    def _merge_views(self, views: Iterator[View]) -> DetDataSample:
        sample, first = next(views)
        mean = SlotProbabilities(first.classes, first.masks.whole())
        for num_views, (_, slots) in enumerate(views, start=2):
            add_view(mean, slots, num_views)

        # The logarithms of probabilities are logits, and the maps already have the original size.
        tiny = torch.finfo(mean.masks.dtype).tiny
        class_logits, mask_logits = (part.clamp_(min=tiny).log_() for part in mean)
        size = tuple(mask_logits.shape[-2:])
        merged = DetDataSample(metainfo=dict(batch_input_shape=size, img_shape=size))
        results = self.module.panoptic_fusion_head.predict(class_logits[None], mask_logits[None], [merged])
        return self.module.add_pred_to_datasample([sample], results)[0]

    def _predict_views(self, images: Sequence[Tensor], samples: SampleList) -> Iterator[View]:
        plain_size = images[0].shape[-2:]
        for image, sample in zip(images, samples):
            preprocessor = self._preprocessor(plain_size, image.shape[-2:])
            yield self._predict_view(preprocessor(dict(inputs=[image], data_samples=[sample]), False))

    def _preprocessor(self, plain_size: torch.Size, view_size: torch.Size) -> torch.nn.Module:
        """The detector's data preprocessor, with a padded size for the view's scale."""
        preprocessor = self.module.data_preprocessor
        is_plain = max(view_size) == max(plain_size)
        if is_plain or getattr(preprocessor, 'pad_size', None) is None:
            return preprocessor
        preprocessor = copy.copy(preprocessor)  # shares the tensors
        preprocessor.pad_size = scaled_canvas(preprocessor.pad_size, plain_size, view_size)
        return preprocessor

    def _predict_view(self, data: dict) -> View:
        """Slots of one view at the original size, with the flip undone."""
        sample, = data['data_samples']
        features = self.module.extract_feat(data['inputs'])
        class_logits, mask_logits = self.module.panoptic_head.predict(features, [sample])

        check_finite_logits(class_logits, mask_logits, [sample])
        masks: MaskRows = SoftmaxRows(
            restored_rows(mask_logits[0], sample.batch_input_shape, sample.img_shape[:2],
                          sample.ori_shape[:2]))
        if sample.get('flip', False):
            masks = FlippedRows(masks, FLIPPED_AXES[sample.flip_direction])
        return View(sample, SlotRows(class_logits[0].float().softmax(dim=-1), masks))
