"""Folding of the batch norms inside of attention and mask prediction, where no layer is beside the norm."""
from typing import Callable, Dict, Tuple, Type

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from remax_mm.models.layers import DualPathLayer, MaskPredictor
from remax_mm.models.layers.axial_attention import AxialAttention2d
from remax_mm.models.transformer_decoders.kmax_transformer_decoder import SlotSelfAttention
from .attention import FoldedAxialAttention2d, FoldedPathAttention
from .folding import Layer, change_outputs, replace_module, scale_and_shift


class AddShift(nn.Module):
    """What remains of the norm of masks: adds one number to all logits, in place.

    Args:
        shift: (1, ).
    """
    shift: Tensor

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer('shift', shift)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x.add_(self.shift)


def fold_axial_attention(model: nn.Module, attention: AxialAttention2d) -> None:
    """Replace by :class:`FoldedAxialAttention2d`."""
    replace_module(model, attention, FoldedAxialAttention2d(attention))


def fold_slot_attention(model: nn.Module, attention: SlotSelfAttention) -> None:
    """Fold the norm on similarities into the queries, and the norm on retrieved values into the values."""
    qkv: Layer = attention.qkv.conv
    key_channels, depth = attention.split_sizes[0], attention.split_sizes[0] // attention.num_heads
    # Softmax removes the shift.
    scale, _ = scale_and_shift(attention.similarity_norm)
    change_outputs(qkv, scale.repeat_interleave(depth))
    change_outputs(qkv, *scale_and_shift(attention.value_norm), start=2 * key_channels)
    attention.similarity_norm = attention.value_norm = nn.Identity()


def fold_dual_path_layer(model: nn.Module, layer: DualPathLayer) -> None:
    """Fold norms into both projections; the values of the memory, which two attentions use, are scaled."""
    num_heads = layer.pixel_projection.num_heads
    for attention, projection in ((layer.memory_attention, layer.memory_projection),
                                  (layer.pixel_attention, layer.pixel_projection)):
        depth = projection.split_sizes[0] // num_heads
        scale, _ = scale_and_shift(attention.similarity_norm)
        change_outputs(projection.qkv.conv, scale.repeat_interleave(depth))
    values = scale_and_shift(layer.memory_attention.value_norm)
    change_outputs(layer.pixel_projection.qkv.conv, *values, start=2 * layer.pixel_projection.split_sizes[0])
    for name in ('memory_attention', 'pixel_attention'):
        setattr(layer, name, FoldedPathAttention(getattr(layer, name), num_heads))


def fold_mask_predictor(model: nn.Module, predictor: MaskPredictor) -> None:
    """Fold the scale of the norm on masks into the kernels of the slots; the shift remains."""
    scale, shift = scale_and_shift(predictor.mask_norm)
    kernel: Layer = predictor.mask_kernel.conv
    change_outputs(kernel, scale.expand(kernel.out_channels))
    predictor.mask_norm = AddShift(shift.to(kernel.weight.dtype))


FOLDS: Dict[Type[nn.Module], Tuple[Callable, Tuple[str, ...]]] = {
    AxialAttention2d: (fold_axial_attention, ('height_axis.qkv', 'width_axis.qkv')),
    SlotSelfAttention: (fold_slot_attention, ('qkv', )),
    DualPathLayer: (fold_dual_path_layer, ('pixel_projection.qkv', 'memory_projection.qkv')),
    MaskPredictor: (fold_mask_predictor, ('mask_kernel', )),
}
"""For each module with such norms: how they are folded, and the layers whose own norms must be folded."""


@torch.no_grad()
def fold_attention_norms(model: nn.Module) -> None:
    """Fold the norms inside of attention and mask prediction, in place.

    A module stays as it is if it has no batch norms, or if the norms of its projections are not folded.
    """
    for module in list(model.modules()):
        if type(module) not in FOLDS:
            continue
        fold, layers = FOLDS[type(module)]
        own = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
        ready = all(isinstance(module.get_submodule(layer).norm, nn.Identity) for layer in layers)
        if own and ready and all(norm.running_mean is not None for norm in own):
            fold(model, module)
