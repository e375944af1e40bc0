"""The module that is exported: from uint8 images to logits, or to what a host needs to merge the masks."""
import inspect
from types import SimpleNamespace
from typing import Any, Dict, NamedTuple, Sequence, Tuple

import torch.nn.functional as F
from torch import Tensor, nn

from remax_mm.models.data_preprocessors import PanopticDataPreprocessor
from remax_mm.models.heads import KMaXFusionHead, MaXFusionHead, RelaxationMixin
from remax_mm.models.heads.mask_merging import PAIRS_ABOVE
from remax_mm.models.heads.panoptic_head import PanopticHead
from remax_mm.models.inference_copy import inference_copy
from .slot_outputs import SlotOutputs, mask_wise_outputs, pixel_wise_outputs


class Logits(NamedTuple):
    """Outputs of a graph without merging; their names are those in the ONNX file.

    Attributes:
        class_logits: (B, N, K + 1) float32, void last.
        mask_logits: (B, N, h, w) float32.
    """
    class_logits: Tensor
    mask_logits: Tensor


class LogitsNetwork(nn.Module):
    """A detector without its training-only parts, from images to the logits of its last layer.

    Images are normalized, then padded with 0 at the bottom and the right, as the data preprocessor does.

    Args:
        model: a detector with a panoptic head; it is copied.
        input_size: (height, width) of the padded images.

    Raises:
        ValueError: the model has no panoptic head that can be exported.
    """

    def __init__(self, model: nn.Module, input_size: Tuple[int, int]) -> None:
        super().__init__()
        head = getattr(model, 'panoptic_head', None)
        if not isinstance(head, (PanopticHead, RelaxationMixin)):
            raise ValueError('Expected a detector with a panoptic head of remax_mm, but got '
                             f'{type(model).__name__} with {type(head).__name__}')
        check_input_size(model, input_size)
        self.detector: Any = inference_copy(model).cpu().requires_grad_(False)
        self.input_size = input_size

    @property
    def takes_any_size(self) -> bool:
        """Whether the batch size and the size of the images may differ; mmdet's heads fix both in a graph."""
        return isinstance(self.detector.panoptic_head, PanopticHead)

    def forward(self, image: Tensor) -> Logits:
        """
        Args:
            image: (B, h, w, 3) uint8 in RGB order, not larger than the input size; (1, H, W, 3) of the input
                size if the network does not take any size.
        """
        preprocessor = self.detector.data_preprocessor
        x = image.permute(0, 3, 1, 2).float()
        if not (isinstance(preprocessor, PanopticDataPreprocessor) or preprocessor._channel_conversion):
            x = x.flip(1)  # trained with images in BGR order
        x = (x - preprocessor.mean) / preprocessor.std
        height, width = self.input_size
        x = F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))

        features = self.detector.extract_feat(x)
        if self.takes_any_size:
            final = self.detector.panoptic_head(features)[-1]
            return Logits(final.class_logits, final.mask_logits)
        # mmdet's heads read the sizes of the images from data samples, which are no arguments of a graph.
        metas = dict(batch_input_shape=self.input_size, img_shape=self.input_size)
        sample = SimpleNamespace(metainfo=metas)
        class_logits, mask_logits = self.detector.panoptic_head.forward(features, [sample])
        return Logits(class_logits[-1], mask_logits[-1])


class SlotNetwork(nn.Module):
    """A network that gives a host what it needs to merge the masks.

    Args:
        network: predicts the logits.
        merging: ``mask-wise`` or ``pixel-wise``.
        thresholds: of the fusion head.
    """

    def __init__(self, network: LogitsNetwork, merging: str, thresholds: Dict[str, float]) -> None:
        super().__init__()
        self.network = network
        self.merging = merging
        self.thresholds = thresholds

    def forward(self, image: Tensor, output_size: Tensor) -> SlotOutputs:
        """
        Args:
            image: (B, h, w, 3) uint8 in RGB order, not larger than the input size.
            output_size: (2,) int64, height and width of the result.
        """
        logits = self.network(image)
        sizes = (self.network.input_size, tuple(image.shape[1:3]), output_size)
        pixel_threshold = self.thresholds['pixel_threshold']
        if self.merging == 'mask-wise':
            return mask_wise_outputs(logits.class_logits, logits.mask_logits, *sizes, pixel_threshold)
        return pixel_wise_outputs(logits.class_logits, logits.mask_logits, *sizes,
                                  self.thresholds['class_threshold'], pixel_threshold)


def check_input_size(model: nn.Module, input_size: Sequence[int]) -> None:
    """
    Raises:
        ValueError: the model does not take images of this size.
    """
    if isinstance(model.data_preprocessor, PanopticDataPreprocessor):
        PanopticDataPreprocessor(pad_size=input_size)  # raises an error if the size is not 32k + 1


def merging_of(model: nn.Module) -> Tuple[str, Dict[str, Any]]:
    """How a detector merges its masks, and the thresholds, defaults included.

    Raises:
        ValueError: a graph cannot prepare this merging.
    """
    head = model.panoptic_fusion_head
    if isinstance(head, KMaXFusionHead):
        merging = 'mask-wise'
    elif isinstance(head, MaXFusionHead):
        merging = 'pixel-wise'
    else:
        raise ValueError(
            'Expected a KMaXFusionHead or a MaXFusionHead, whose merging can be exported, but got '
            f'{type(head).__name__}: export the logits (--logits)')
    thresholds = {
        key: head.test_cfg.get(key,
                               inspect.signature(head.fuse).parameters[key].default)
        for key in head.PANOPTIC_KEYS
    }
    if merging == 'mask-wise' and thresholds['pixel_threshold'] <= PAIRS_ABOVE:
        raise ValueError(
            f'Expected `pixel_threshold` above {PAIRS_ABOVE:.4f}, which at most two slots of a '
            f'pixel exceed, but got {thresholds["pixel_threshold"]}: export the logits (--logits)')
    return merging, thresholds
