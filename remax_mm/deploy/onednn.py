"""oneDNN for the convolutions of a CPU: each with its activation, on weights that are reordered only once.

torch also calls oneDNN, but it reorders the weights in each call, and it does not call it for small inputs.
"""
from typing import Any, Dict, List, Optional, Tuple

import torch
from mmcv.cnn.bricks import wrappers
from torch import Tensor, nn

from remax_mm.models.layers import ConvNormAct
from .folding import replace_module
from .inference_kmax import InferenceMaskPredictor, length_of
from .inference_layers import InplaceGELU

STRIP_PIXELS = 10000
"""About the number of pixels of a strip. Larger tensors get new memory in each forward, which is slow."""

CONVS = (nn.Conv1d, nn.Conv2d, wrappers.Conv2d)
ACTIVATIONS = {nn.Identity: ('none', ''), nn.ReLU: ('relu', ''), InplaceGELU: ('gelu', 'none')}
"""What oneDNN computes after a convolution: the name of the activation and its variant."""


def convolve(x: Tensor,
             weight: Tensor,
             bias: Optional[Tensor] = None,
             *,
             activation: Tuple[str, str] = ACTIVATIONS[nn.Identity],
             padding: List[int] = [0, 0],
             stride: List[int] = [1, 1],
             dilation: List[int] = [1, 1],
             groups: int = 1) -> Tensor:
    """2D convolution and activation in one pass over memory.

    torch has no public name for this operator, which its compiler uses: torch/_inductor/mkldnn_lowerings.py.

    Args:
        x: (B, C, h, w) float32.
        weight: (C', C / groups, k, k'), or what :func:`reorder` made of it.
        activation: of :data:`ACTIVATIONS`.

    Returns:
        (B, C', h', w').
    """
    name, variant = activation
    return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, padding, stride, dilation, groups, name,
                                                   [], variant)


class OneDNNConv(nn.Module):
    """Convolution and activation by oneDNN.

    The weights are reordered for the size of the inputs, again when it changes, and kept beside the original
    ones.

    Args:
        conv: 1D or 2D, zero padding; shares its parameters.
        activation: of :data:`ACTIVATIONS`.
    """

    def __init__(self, conv: Any, activation: Tuple[str, str]) -> None:
        super().__init__()
        self.is_1d = isinstance(conv, nn.Conv1d)
        self.weight, self.bias = conv.weight, conv.bias
        self.arguments: Dict[str, Any] = {
            name: list(getattr(conv, name)) + self.is_1d * [default]
            for name, default in (('padding', 0), ('stride', 1), ('dilation', 1))
        }
        self.arguments['groups'] = conv.groups
        self.activation = activation
        self.reordered: Optional[Tuple[torch.Size, Tensor]] = None

    def __getstate__(self) -> dict:
        return dict(self.__dict__, reordered=None)  # such tensors cannot be copied

    def forward(self, x: Tensor) -> Tensor:
        """See :class:`torch.nn.Conv1d` and :class:`torch.nn.Conv2d`."""
        if self.is_1d:
            return self.convolve(x.unsqueeze(3)).squeeze(3)
        return self.convolve(x)

    def convolve(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h', w')."""
        reordered = self.reordered
        if reordered is None or reordered[0] != x.shape:
            weight = self.weight.unsqueeze(3) if self.is_1d else self.weight
            reordered = self.reordered = x.shape, reorder(weight, x.shape, **self.arguments)
        return convolve(x, reordered[1], self.bias, activation=self.activation, **self.arguments)


class OneDNNMaskPredictor(InferenceMaskPredictor):
    """:class:`InferenceMaskPredictor` that computes the masks in strips of rows, with the product by oneDNN.

    Args:
        predictor: shares its parts.
    """

    def __init__(self, predictor: InferenceMaskPredictor) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(predictor.__dict__)

    def predict_masks(self, kernel: Tensor, feature: Tensor) -> Tensor:
        """See :meth:`InferenceMaskPredictor.predict_masks`."""
        batch_size, _, height, width = feature.shape
        masks = torch.empty((batch_size, kernel.shape[1], height, width), memory_format=torch.channels_last)
        num_strips = min(height, max(1, round(height * width / STRIP_PIXELS)))
        edges = [height * index // num_strips for index in range(num_strips + 1)]
        for image, weight, mask in zip(feature.split(1), kernel[..., None, None], masks.split(1)):
            for start, stop in zip(edges, edges[1:]):
                embedding = self.embed_rows(image, start, stop)
                torch.div(convolve(embedding, weight), length_of(embedding), out=mask[:, :, start:stop])
        return self.add_shift(masks)

    def embed_rows(self, image: Tensor, start: int, stop: int) -> Tensor:
        """Embeddings of the pixels of some rows, (1, D, stop - start, w), from (1, in_channels, h, w)."""
        depthwise, pointwise = self.pixel_head
        halo = depthwise.get_parameter('conv.weight').shape[2] // 2
        first = max(start - halo, 0)
        rows = depthwise(image[:, :, first:stop + halo])[:, :, start - first:stop - first]
        return self.pixel_embedding(pointwise(rows))


def reorder(weight: Tensor, size: torch.Size, padding: List[int], stride: List[int], dilation: List[int],
            groups: int) -> Tensor:
    """Weights in the order in which oneDNN reads them for inputs of a size; of no use for other sizes."""
    operator: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    return operator(weight.to_mkldnn(), padding, stride, dilation, groups, list(size))


def can_use_onednn(network: nn.Module, dtype: Optional[torch.dtype] = None) -> bool:
    """Whether :func:`use_onednn` can change a network, which runs under autocast with ``dtype``."""
    weight = next(network.parameters())
    supported = weight.device.type == 'cpu' and weight.dtype == torch.float32 and dtype is None
    return (supported and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, '_convolution_pointwise')
            and hasattr(torch._C._nn, 'mkldnn_reorder_conv2d_weight'))


def use_onednn(network: nn.Module) -> None:
    """Replace convolutions, their activations and the product of the mask predictor, in place.

    Args:
        network: float32, on a CPU.
    """
    for module in list(network.modules()):
        if isinstance(module, InferenceMaskPredictor):
            replace_module(network, module, OneDNNMaskPredictor(module))
        elif isinstance(module, ConvNormAct) and _is_supported(module.conv) and isinstance(
                module.norm, nn.Identity) and type(module.act) in ACTIVATIONS:
            setattr(module, 'conv', OneDNNConv(module.conv, ACTIVATIONS[type(module.act)]))
            module.act = nn.Identity()
    for module in list(network.modules()):
        if _is_supported(module):
            replace_module(network, module, OneDNNConv(module, ACTIVATIONS[nn.Identity]))


def _is_supported(module: nn.Module) -> bool:
    return type(module) in CONVS and module.padding_mode == 'zeros' and not isinstance(module.padding, str)
