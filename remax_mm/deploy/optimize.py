"""Optimization of a trained detector for inference."""
from contextlib import nullcontext
from typing import Any, ContextManager, Iterator, Optional, Tuple

import torch
from mmcv.cnn.bricks import DropPath
from mmdet.models.detectors import MaskFormer
from mmdet.structures import DetDataSample, SampleList
from mmengine.model import BaseTTAModel
from torch import Tensor, nn

from remax_mm.models.heads import KMaXHead, MaXDeepLabHead
from remax_mm.models.inference_copy import inference_copy
from remax_mm.models.layers import AxialBlock, BasicBlock, BottleneckBlock, ConvNormAct
from remax_mm.models.pixel_decoders import KMaXPixelDecoder
from remax_mm.structures import full_precision
from .fold_batch_norms import FoldReport, fold_batch_norms, largest_difference
from .folding import replace_module
from .inference_kmax import InferenceKMaXHead, can_simplify
from .inference_layers import InferenceBlock, inplace
from .onednn import can_use_onednn, use_onednn

OWN_HEADS = (KMaXHead, MaXDeepLabHead)
BLOCKS = (AxialBlock, BasicBlock, BottleneckBlock)
DROPOUTS = (DropPath, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
TRIAL_SIDE = 129
"""Side of the drawn image that shows which layers are neighbors, and how much the outputs change."""


class InferenceNetwork(nn.Module):
    """The network of a detector, in the place of its head; the images are then in the place of the features.

    Args:
        detector: one with a head of this package. Its parts are shared.

    Attributes:
        channels_last: whether the images get this memory format.
        dtype: type of autocast, None for none.
        report: what was folded, and the largest difference of a logit to the detector.
        freezing: whether compilation takes the weights as constants, which it reorders once, so that
            convolutions are fused with what follows them.
    """

    def __init__(self, detector: MaskFormer) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.neck = detector.neck if detector.with_neck else nn.Identity()
        self.head = detector.panoptic_head
        self.channels_last = False
        self.dtype: Optional[torch.dtype] = None
        self.report: Optional[FoldReport] = None
        self.freezing = False

    def forward(self, images: Tensor, batch_data_samples: Optional[SampleList] = None) -> Any:
        """What the head returns for normalized images (B, 3, H, W): predictions, the final one last."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            return self.run_head(self.neck(self.backbone(images)), batch_data_samples)

    def run_head(self, features: Any, batch_data_samples: Optional[SampleList]) -> Any:
        """What the head returns for features."""
        return self.head(features)

    def predict(self, images: Tensor, batch_data_samples: SampleList) -> Tuple[Tensor, Tensor]:
        """Final class logits (B, N, K + 1) and mask logits (B, N, h, w), for the detector's ``predict``."""
        return self.logits(images)

    def logits(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        """What :meth:`predict` returns, which needs no data samples."""
        with _constant_weights() if self.freezing else nullcontext():
            final = self(images)[-1]
        return final.class_logits, final.mask_logits


class HostNetwork(InferenceNetwork):
    """The same for a head of mmdet, which needs the data samples and returns (B, N, H, W) mask logits."""

    def run_head(self, features: Any, batch_data_samples: Optional[SampleList]) -> Any:
        """Class logits and mask logits in float32."""
        logits = self.head.predict(features, batch_data_samples)
        return tuple(full_precision(part) for part in logits)

    def predict(self, images: Tensor, batch_data_samples: SampleList) -> Tuple[Tensor, Tensor]:
        """Final class logits (B, N, K + 1) and mask logits (B, N, H, W)."""
        return self(images, batch_data_samples)


@torch.no_grad()
def optimize_for_inference(model: nn.Module,
                           *,
                           channels_last: bool = True,
                           dtype: Optional[torch.dtype] = None,
                           compile: bool = False) -> nn.Module:
    """Copy a trained detector, with the same results in less time.

    Training-only parts and dropout are removed, batch norms are folded, activations overwrite their inputs,
    and what does not change the final masks is not computed. The copy is used like the detector, also for
    test-time augmentation and tiles; it cannot be trained or saved. Its ``panoptic_head.report`` says what
    was folded and how much the logits of a drawn image differ.

    Args:
        model: a detector like mmdet's ``MaskFormer`` on its final device, or a wrapper of one for test-time
            augmentation or tiles. Not changed.
        channels_last: memory format of the features, faster on CPUs.
        dtype: type of the forward pass under autocast; None for the type of the weights. Half precision
            changes the results.
        compile: whether ``torch.compile`` makes one graph of the whole network. It compiles during the first
            forward pass, and again for each size of the images.

    Raises:
        TypeError: the model is no such detector.
        ValueError: ``dtype`` is not a half-precision type, or ``compile`` with a head of mmdet, whose forward
            pass is not one graph.
    """
    model = inference_copy(model).requires_grad_(False)
    detector = model.module if isinstance(model, BaseTTAModel) else model
    _check(detector, dtype, compile)
    own = isinstance(detector.panoptic_head, OWN_HEADS)
    network = (InferenceNetwork if own else HostNetwork)(detector).eval()

    # On any device
    inputs = _trial_inputs(network)
    before = network.predict(*inputs)
    _remove_dropout(network)
    report = fold_batch_norms(network, *inputs)
    _simplify(network)
    network.report = report._replace(max_difference=largest_difference(before, network.predict(*inputs)))

    # On this device
    network.channels_last, network.dtype = channels_last, dtype
    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device = next(network.parameters()).device
    if compile:
        network.freezing = device.type == 'cpu'
        network.compile(fullgraph=True, dynamic=False)
    elif can_use_onednn(network, dtype):
        use_onednn(network)

    detector.backbone, detector.panoptic_head = nn.Identity(), network
    if detector.with_neck:
        detector.neck = nn.Identity()
    return model.eval()


def _constant_weights() -> ContextManager:
    """An option of torch's compiler, which has no effect as an argument of ``compile``."""
    from torch._inductor import config  # takes long, and only compilation needs it
    return config.patch(freezing=True)


def _check(detector: nn.Module, dtype: Optional[torch.dtype], compile: bool) -> None:
    if not isinstance(detector, MaskFormer):
        raise TypeError(
            "Expected a detector like mmdet's MaskFormer, with a backbone and a panoptic head, but "
            f'got {type(detector).__name__}')
    if isinstance(detector.panoptic_head, InferenceNetwork):
        raise TypeError('Expected a detector that is not optimized, but got one that is')
    if dtype not in (None, torch.bfloat16, torch.float16):
        raise ValueError(f'Expected `dtype` to be None, torch.bfloat16 or torch.float16, but got {dtype}')
    if compile and not isinstance(detector.panoptic_head, OWN_HEADS):
        raise ValueError(
            'Expected a head of kMaX-DeepLab or MaX-DeepLab to compile, because the forward pass '
            f'of {type(detector.panoptic_head).__name__} is not one graph')


def _trial_inputs(network: InferenceNetwork) -> Tuple[Tensor, SampleList]:
    """A drawn image and its data sample."""
    weight = next(network.parameters())
    image = torch.randn(1, 3, TRIAL_SIDE, TRIAL_SIDE, generator=torch.Generator().manual_seed(0))
    image = image.to(weight.device, weight.dtype)
    size = (TRIAL_SIDE, TRIAL_SIDE)
    keys = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    return image, [DetDataSample(metainfo=dict.fromkeys(keys, size))]


def _remove_dropout(network: nn.Module) -> None:
    for module in list(network.modules()):
        if isinstance(module, DROPOUTS):
            replace_module(network, module, nn.Identity())


def _simplify(network: InferenceNetwork) -> None:
    """Replace layers whose norms are folded, in place."""
    # The features of a pixel decoder are its own; those of a backbone may be used elsewhere.
    own = [
        block for part in network.modules() if isinstance(part, KMaXPixelDecoder) for block in _blocks(part)
    ]
    for block in list(_blocks(network)):
        if all(
                isinstance(part.norm, nn.Identity) for part in block.modules()
                if isinstance(part, ConvNormAct)):
            replace_module(network, block, InferenceBlock(block, overwrite=block in own))
    for module in network.modules():
        if isinstance(module, ConvNormAct):
            module.act = inplace(module.act)
    if can_simplify(network.head):
        network.head = InferenceKMaXHead(network.head)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    return (module for module in network.modules() if isinstance(module, BLOCKS))
