"""Test-time augmentation: one panoptic prediction from several scaled and flipped views of an image.

Dense models average what they say of each pixel: mmseg's ``SegTTAModel`` softmax scores, Panoptic-DeepLab
class probabilities, centers and offsets (bowenc0221/panoptic-deeplab, segmentation/utils/test_utils.py).
Mask slots cannot be averaged by their number, because slot 7 of one view need not be slot 7 of the next. So
the slots of each view are first matched, one to one, to those of the mean so far, by class and by mask.
Ways not taken:

- Pooling the segments of all views and dropping doubles, as is done for boxes, keeps the false positives of
  every view, and takes each mask from one view alone.
- A vote of finished segments throws the probabilities away before they are averaged.

Masks of kMaX-DeepLab are a softmax over slots, and a one-to-one matching keeps that: what is averaged is the
joint probability of slot and class at each pixel, and a mean of distributions is a distribution. Summed over
classes it gives the mean of the masks. Summed over pixels it gives the classes of a slot, with each view
counting by the area that the slot has in it: a slot without pixels, matched because it was left over, has no
say. The logarithms make logits for the fusion head, whose thresholds mean what they always do. A thing that a
minority of the views see loses its pixels to what the others see there.
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
from ..heads.panoptic_fusion_head import PanopticFusionHead, restore_size

FLIPPED_AXES = dict(horizontal=(-1, ), vertical=(-2, ), diagonal=(-2, -1))


class SlotProbabilities(NamedTuple):
    """What the slots say about one image, at its original size.

    Attributes:
        classes: (N, K + 1), sums to 1 for each slot.
        masks: (N, H, W), sums to 1 over the slots at each pixel.
    """
    classes: Tensor
    masks: Tensor


class View(NamedTuple):
    """One view of an image, predicted."""
    sample: DetDataSample
    slots: SlotProbabilities


def match_slots(mean: SlotProbabilities, view: SlotProbabilities) -> Tensor:
    """The slot of a view that each slot of the mean stands for: the largest total similarity, one to one.

    A pair's similarity is the probability that both draw the same class, void among them, times the soft Dice
    2 sum(p q) / (sum(p^2) + sum(q^2)) of their masks, which is 1 for equal masks and for these alone.

    Returns:
        (N,) int64.
    """
    one, other = mean.masks.flatten(1), view.masks.flatten(1)  # (N, H * W)
    with torch.autocast(one.device.type, enabled=False):
        shared = torch.einsum('np,mp->nm', one, other)
        squares = torch.einsum('np,np->n', one, one)[:, None] + torch.einsum('mp,mp->m', other, other)
        masks = 2 * shared / squares.clamp(min=torch.finfo(squares.dtype).tiny)
        classes = torch.einsum('nk,mk->nm', mean.classes, view.classes)
    _, slots = linear_sum_assignment((classes * masks).cpu().numpy(), maximize=True)
    return torch.from_numpy(slots).to(one.device)


def add_view(mean: SlotProbabilities, view: SlotProbabilities, num_views: int) -> None:
    """Take one more view into a mean, in place.

    Args:
        mean: of the views before; becomes the mean of ``num_views``.
        view: its slots in any order.
        num_views: number of views with this one.
    """
    slots = match_slots(mean, view)
    # Of slots that have no pixels in any view, all views count alike.
    area, view_area = (part.masks.sum((1, 2)) + 1e-6 for part in (mean, view))
    share = view_area[slots] / ((num_views - 1) * area + view_area[slots])
    mean.classes.lerp_(view.classes[slots], share[:, None])
    mean.masks.mul_((num_views - 1) / num_views).index_add_(
        0, slots.argsort(), view.masks, alpha=1 / num_views)  # without a reordered copy


def scaled_canvas(pad_size: Sequence[int], plain_size: Sequence[int],
                  view_size: Sequence[int]) -> Tuple[int, int]:
    """The padded size of a view: as large beside its image as the plain one's, in sides of 32k + 1.

    Args:
        pad_size: (height, width) that the plain view is padded to.
        plain_size: (height, width) of the plain view's image.
        view_size: (height, width) of this view's image.
    """
    scale = max(view_size) / max(plain_size)
    scaled = (round((side - 1) * scale / STRIDE) * STRIDE + 1 for side in pad_size)
    return tuple(max(side, next_aligned_size(inner)) for side, inner in zip(scaled, view_size))


@MODELS.register_module()
class PanopticTTAModel(BaseTTAModel):
    """Average the slots of several views of an image, then fuse them as those of one.

    Views come from mmcv's ``TestTimeAug`` in ``tta_pipeline``. The first must be of the plain size, that of
    the test pipeline: it is padded as always, and views of other scales to a canvas of their scale
    (:func:`scaled_canvas`). A single view that is not flipped is the plain prediction, bit for bit.

    Views run one after the other, and each image for itself: at a time the mean and one view are alive,
    however many views there are.

    Args:
        module: config of a detector with a :class:`PanopticFusionHead`, or the detector.
        data_preprocessor: replaces the detector's where given.

    Raises:
        TypeError: the detector has another fusion head, so that its masks are no softmax over slots.
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
            data: ``inputs`` and ``data_samples``, each a list over views of lists over images.

        Returns:
            The data samples of the first view, with the results of all.
        """
        inputs, data_samples = data['inputs'], data['data_samples']
        if len(inputs) == 1 and not any(sample.get('flip', False) for sample in data_samples[0]):
            return self.module.test_step(dict(inputs=inputs[0], data_samples=data_samples[0]))
        return self.merge_preds([
            self._predict_views(images, samples) for images, samples in zip(zip(*inputs), zip(*data_samples))
        ])

    def merge_preds(self, data_samples_list: List[Iterator[View]]) -> SampleList:
        """Merge the views of each image; unlike the parent's, views are drawn one at a time."""
        return [self._merge_views(views) for views in data_samples_list]

    def _merge_views(self, views: Iterator[View]) -> DetDataSample:
        sample, mean = next(views)
        num_views = 1
        for _, slots in views:
            num_views += 1
            add_view(mean, slots, num_views)
            del slots  # else it would live on beside the next view

        # The logarithms of probabilities are logits, and the maps have their size already.
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
        """The detector's own data preprocessor, with a canvas of the view's scale."""
        preprocessor = self.module.data_preprocessor
        is_plain = max(view_size) == max(plain_size)
        if is_plain or getattr(preprocessor, 'pad_size', None) is None:
            return preprocessor
        preprocessor = copy.copy(preprocessor)  # shares the tensors
        preprocessor.pad_size = scaled_canvas(preprocessor.pad_size, plain_size, view_size)
        return preprocessor

    def _predict_view(self, data: dict) -> View:
        """Slots of one view, at the original size and turned back to how the image stands."""
        sample, = data['data_samples']
        features = self.module.extract_feat(data['inputs'])
        class_logits, mask_logits = self.module.panoptic_head.predict(features, [sample])

        masks = restore_size(mask_logits[0].float(), sample.batch_input_shape, sample.img_shape[:2],
                             sample.ori_shape[:2])
        masks = masks.softmax(dim=0)
        if sample.get('flip', False):
            masks = masks.flip(FLIPPED_AXES[sample.flip_direction])
        return View(sample, SlotProbabilities(class_logits[0].float().softmax(dim=-1), masks))
