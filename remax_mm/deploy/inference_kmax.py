"""The network of kMaX-DeepLab's head at inference, without arithmetic that its result does not depend on."""
from typing import Any, List, NamedTuple, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remax_mm.models.heads import KMaXHead
from remax_mm.models.layers import MaskPredictor, resize_to, sum_by_owner
from remax_mm.models.layers.mask_predictor import add_void_prior
from remax_mm.models.pixel_decoders import KMaXPixelDecoder
from remax_mm.models.transformer_decoders.kmax_transformer_decoder import KMaXDecoderLayer
from remax_mm.structures import full_precision
from .fold_attention_norms import AddShift
from .folding import Layer
from .inference_layers import InplaceGELU

MIN_LENGTH = 1e-12
"""Smallest divisor in :func:`torch.nn.functional.normalize`."""


class InferencePrediction(NamedTuple):
    """Class logits (B, N, K + 1) and mask logits (B, N, h, w), as in ``MaskPrediction``."""
    class_logits: Tensor
    mask_logits: Tensor


class InferencePixelDecoder(nn.Module):
    """:class:`KMaXPixelDecoder` that activates each output once, for the next stage and the decoder layers.

    Args:
        decoder: not changed. All of its coarse features are projected, so none is used without activation.
    """

    def __init__(self, decoder: KMaXPixelDecoder) -> None:
        super().__init__()
        fuses: Sequence[Any] = list(decoder.fuses)
        self.input_norms = decoder.input_norms
        self.stages = decoder.stages
        self.coarse = nn.ModuleList(fuse.coarse[1] for fuse in fuses)
        self.fine = nn.ModuleList(fuse.fine for fuse in fuses)
        self.act = InplaceGELU()

    def forward(self, features: Sequence[Tensor]) -> List[Tensor]:
        """
        Args:
            features: (B, C, h, w), fine to coarse.

        Returns:
            (B, C', h, w), coarse to fine, all activated but the last one.
        """
        features = [norm(feature) for norm, feature in zip(self.input_norms, reversed(features))]
        outputs = [self.stages[0](features[0])]
        for coarse, fine, stage, feature in zip(self.coarse, self.fine, self.stages[1:], features[1:]):
            outputs[-1] = self.act(outputs[-1])
            fused = resize_to(coarse(outputs[-1]), feature.shape[-2:]) + fine(feature)
            outputs.append(stage(fused))
        return outputs


class InferenceDecoderLayer(nn.Module):
    """:class:`KMaXDecoderLayer` that only updates the slots, and leaves out what does not change them.

    The classes, the length of the pixel embeddings and the shift of the mask logits do not change which slot
    has the highest logit. The embedding of the pixels is a linear map, so it is applied to the kernels of the
    slots; so is their value, which is applied to the sums over the pixels of each slot.

    Args:
        layer: without norms, and without ReMask; not changed.
    """
    embedding_weight: Tensor
    embedding_bias: Tensor
    sum_weight: Tensor
    count_weight: Tensor
    update_bias: Tensor

    def __init__(self, layer: KMaXDecoderLayer) -> None:
        super().__init__()
        self.slot_projection = layer.slot_projection
        self.pixel_projection = layer.pixel_projection
        self.pixel_head = layer.predictor.pixel_head
        self.mask_kernel = layer.predictor.mask_kernel
        embedding: Layer = layer.predictor.pixel_embedding.conv
        self.register_buffer('embedding_weight', embedding.weight.detach().flatten(1))  # (D, C)
        self.register_buffer('embedding_bias', embedding.bias.detach()[:, None])

        # From the sum of the pixels of a slot, and from their number, to the update of the slot
        value: Layer = layer.pixel_value.conv
        update: Layer = layer.update.conv
        matrix = update.weight.detach().double().flatten(1)
        for name, part in (('sum_weight', matrix @ value.weight.detach().double().flatten(1)),
                           ('count_weight', matrix @ value.bias.detach().double()[:, None]),
                           ('update_bias', update.bias.detach().double()[:, None])):
            self.register_buffer(name, part.to(update.weight.dtype))
        self.self_attention = layer.self_attention
        self.ffn = layer.ffn

    def forward(self, slots: Tensor, feature: Tensor) -> Tensor:
        """Update slots (B, C, N) with a feature (B, in_channels, h, w), which is activated."""
        slot_space = self.slot_projection(slots)
        pixel_space = self.pixel_projection(feature)

        # The slot of each pixel; then the sum over the pixels of each slot
        kernel, head = self.mask_kernel(slot_space), self.pixel_head(pixel_space)
        with torch.autocast(slots.device.type, enabled=False):
            owner = self.assign(full_precision(kernel).transpose(1, 2), _to_tokens(head))
            update = self.update(_to_tokens(pixel_space), owner, slots.shape[-1])

        slots = F.gelu(slots + update + self.self_attention(slot_space))
        return F.gelu(slots + self.ffn(slots))

    def assign(self, kernel: Tensor, tokens: Tensor) -> Tensor:
        """Slot of each pixel, (B, P), from kernels (B, N, D) and pixels (B, P, C)."""
        bias, weight = kernel @ self.embedding_bias, kernel @ self.embedding_weight
        return torch.baddbmm(bias.transpose(1, 2), tokens, weight.transpose(1, 2)).argmax(dim=2)

    def update(self, tokens: Tensor, owner: Tensor, num_slots: int) -> Tensor:
        """Update of the slots, (B, C, N), from the pixels (B, P, C) and their slots (B, P)."""
        sums = sum_tokens(tokens, owner, num_slots)
        counts = sums.new_zeros(len(owner), num_slots).scatter_add_(1, owner, torch.ones_like(tokens[..., 0]))
        return self.sum_weight @ sums + self.count_weight * counts[:, None] + self.update_bias


def sum_tokens(tokens: Tensor, owner: Tensor, num_slots: int) -> Tensor:
    """Sum over the pixels of each slot, see :func:`sum_by_owner`; faster on a CPU.

    Args:
        tokens: (B, P, C).
        owner: (B, P) in [0, num_slots).

    Returns:
        (B, C, num_slots).
    """
    if tokens.device.type != 'cpu':
        return sum_by_owner(tokens.transpose(1, 2), owner,
                            num_slots)  # additions on a GPU have no fixed order
    batch_size, _, channels = tokens.shape
    rows = owner + num_slots * torch.arange(batch_size)[:, None]
    sums = tokens.new_zeros(batch_size * num_slots, channels)
    sums.index_add_(0, rows.flatten(), tokens.reshape(-1, channels))
    return sums.view(batch_size, num_slots, channels).transpose(1, 2)


def _to_tokens(feature: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C), at least float32; a view if the channels are last in memory."""
    return full_precision(feature).flatten(2).transpose(1, 2)


class InferenceMaskPredictor(nn.Module):
    """:class:`MaskPredictor` that divides the mask logits by the length of the pixel embedding, in place.

    Args:
        predictor: with a folded norm on masks; not changed.
    """

    def __init__(self, predictor: MaskPredictor) -> None:
        super().__init__()
        self.pixel_head = predictor.pixel_head
        self.pixel_embedding = predictor.pixel_embedding
        self.mask_kernel = predictor.mask_kernel
        self.class_head = predictor.class_head
        self.add_shift = predictor.mask_norm

    def forward(self, mask_embedding: Tensor, class_embedding: Tensor,
                feature: Tensor) -> InferencePrediction:
        """See :class:`MaskPredictor`."""
        class_logits = add_void_prior(self.class_head(class_embedding).transpose(1, 2))
        kernel = self.mask_kernel(mask_embedding).transpose(1, 2)
        return InferencePrediction(full_precision(class_logits), self.predict_masks(kernel, feature))

    def predict_masks(self, kernel: Tensor, feature: Tensor) -> Tensor:
        """(B, N, h, w) from kernels (B, N, D) of the slots and a feature (B, in_channels, h, w)."""
        embedding = self.pixel_embedding(self.pixel_head(feature))
        with torch.autocast(feature.device.type, enabled=False):
            embedding = full_precision(embedding)
            product = (full_precision(kernel) @ embedding.flatten(2)).unflatten(2, feature.shape[-2:])
            return self.add_shift(product.div_(length_of(embedding)))


def length_of(embedding: Tensor) -> Tensor:
    """Length of each pixel's vector, (B, 1, h, w) from (B, D, h, w), as a divisor."""
    return torch.linalg.vector_norm(embedding, dim=1, keepdim=True).clamp_(min=MIN_LENGTH)


class InferenceKMaXHead(nn.Module):
    """:class:`KMaXHead` that predicts only the final masks.

    Args:
        head: without norms and without training-only parts, see :func:`can_simplify`; not changed.
    """

    def __init__(self, head: KMaXHead) -> None:
        super().__init__()
        decoder = head.transformer_decoder
        self.pixel_decoder = InferencePixelDecoder(head.pixel_decoder)
        self.cluster_centers = decoder.cluster_centers
        self.feature_of_layer = decoder.feature_of_layer
        self.layers = nn.ModuleList(InferenceDecoderLayer(layer) for layer in decoder.layers)
        self.class_embedding = decoder.class_embedding
        self.mask_embedding = decoder.mask_embedding
        self.predictor = InferenceMaskPredictor(decoder.predictor)

    def forward(self, features: Sequence[Tensor]) -> Tuple[InferencePrediction]:
        """The final prediction from backbone features (B, C, h, w), fine to coarse."""
        features = self.pixel_decoder(features)
        slots = self.cluster_centers.expand(len(features[0]), -1, -1)
        for layer, index in zip(self.layers, self.feature_of_layer):
            slots = layer(slots, features[index])
        return (self.predictor(self.mask_embedding(slots), self.class_embedding(slots), features[-1]), )


def can_simplify(head: nn.Module) -> bool:
    """Whether :class:`InferenceKMaXHead` can replace a head.

    It cannot where group norms are used, where ReMask is used at test, or where a coarse and a fine feature
    have the same channels, because their sum is then not activated.
    """
    if type(head) is not KMaXHead:
        return False
    layers, predictor = head.transformer_decoder.layers, head.transformer_decoder.predictor
    norms = [part.norm for layer in layers for part in (layer.predictor.pixel_embedding, layer.pixel_value)]
    folded = all(isinstance(norm, nn.Identity) for norm in [*norms, *(layer.update_norm for layer in layers)])
    folded = folded and isinstance(predictor.mask_norm, AddShift)
    return (folded and all(layer.remask is None for layer in layers)
            and not any(isinstance(fuse.coarse, nn.Identity) for fuse in head.pixel_decoder.fuses))
