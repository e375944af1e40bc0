"""ReMask: semantics relax the panoptic masks, in training only (ReMaX, arXiv 2306.17319, Sec. 3.1)."""
from functools import partial
from typing import Mapping, Tuple

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, StageContext, full_precision
from ..layers import KMAX_ACT, KMAX_NORM, ActConfig, NormConfig

ACTIVATIONS = ('sigmoid', 'softmax')
SOURCES = ('pixel_space', 'pixel_decoder', 'embedding')


def semantic_gate(sem_logits: Tensor, class_logits: Tensor, activation: str = 'sigmoid') -> Tensor:
    """Agreement of each slot's classes with the semantics of each pixel: Eq. 1 of ReMaX.

    Args:
        sem_logits: (B, C, h, w), C >= K; channels after the K classes are not part of the product.
        class_logits: (B, N, K + 1); the void column is not part of it either.
        activation: ``'sigmoid'`` as in the paper, gate in [0, K], or ``'softmax'`` over the classes (for
            slots including void, which is then dropped), gate in [0, 1].

    Returns:
        (B, N, h, w), at least float32.

    Raises:
        ValueError: fewer than K semantic logits.
    """
    num_classes = class_logits.shape[-1] - 1
    if sem_logits.shape[1] < num_classes:
        raise ValueError(f'Expected semantic logits of at least {num_classes} classes, but got '
                         f'{sem_logits.shape[1]}')
    sem_logits = full_precision(sem_logits)
    semantic = sem_logits.sigmoid() if activation == 'sigmoid' else sem_logits.softmax(dim=1)
    return _gate(semantic[:, :num_classes], class_logits, activation)


def _gate(semantic: Tensor, class_logits: Tensor, activation: str) -> Tensor:
    """Class probabilities, from (B, N, K + 1) logits, times semantics (B, K, h, w): (B, N, h, w)."""
    class_logits = full_precision(class_logits)
    if activation == 'sigmoid':
        classes = class_logits[..., :-1].sigmoid()
    else:
        classes = class_logits.softmax(dim=-1)[..., :-1]
    return torch.einsum('bnk,bkhw->bnhw', classes, semantic)


def relax_mask_logits(mask_logits: Tensor,
                      class_logits: Tensor,
                      sem_logits: Tensor,
                      *,
                      activation: str = 'sigmoid',
                      identity: bool = True,
                      stop_gradient: bool = True,
                      detach_class: bool = True) -> Tensor:
    """Amplify mask logits where the semantic prediction agrees with the slot: Eq. 2 of ReMaX.

    Args:
        mask_logits: (B, N, h, w).
        class_logits: (B, N, K + 1), void last.
        sem_logits: (B, C, h, w), C >= K.
        activation: see :func:`semantic_gate`.
        identity: add the identity term ``mask_logits`` of Eq. 2 (ablated in Table 5).
        stop_gradient: no gradient from the relaxed masks into ``sem_logits`` (Fig. 2; ablated in Table 7).
        detach_class: no gradient into ``class_logits`` either. Their absolute level is not supervised, so the
            mask loss could otherwise increase it without limit.

    Returns:
        (B, N, h, w), at least float32.
    """
    # The factor can start near 1 + K / 4, too large for half precision.
    with torch.autocast(mask_logits.device.type, enabled=False):
        gate = semantic_gate(sem_logits.detach() if stop_gradient else sem_logits,
                             class_logits.detach() if detach_class else class_logits, activation)
        return _amplify(mask_logits, gate, identity)


def _amplify(mask_logits: Tensor, gate: Tensor, identity: bool) -> Tensor:
    """Eq. 2 of ReMaX, with or without its identity term."""
    return full_precision(mask_logits) * (gate + 1 if identity else gate)


def build_remask(config: ConfigDict,
                 widths: Mapping[str, int],
                 num_classes: int,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = KMAX_ACT) -> nn.Module:
    """Build the ReMask of a decoder stage.

    Its semantic head gets the arguments that the stage knows, unless its config states them. Its initial
    weights do not advance torch's random generator, so that with the same seed all other weights of a model
    are the same with and without ReMask.

    Args:
        config: of :class:`ReMask` or of a variant.
        widths: channels of the sources of the stage, see :class:`ReMask`.
        num_classes: classes of the semantic head.
        norm_cfg, act_cfg: of the semantic head.
    """
    if config.get('semantic_head') is not None:
        known = dict(
            in_channels=widths.get(config.get('source', 'pixel_space')),
            num_classes=num_classes,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg)
        config = dict(config, semantic_head={**known, **config['semantic_head']})
    with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
        # A stream of its own, not the numbers that the next part of the model gets.
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), device='cpu')))
        return MODELS.build(config)


@MODELS.register_module()
class ReMask(nn.Module):
    """Predict semantics from a decoder stage's pixel feature and relax the stage's masks; identity in eval.

    Args:
        semantic_head: config of a head (B, C, h, w) to (B, K, h, w); it exists in training only.
        source: input of the head, the paper's "key in each k-means cross-attention": ``'pixel_space'``, the
            feature that the slots of the stage are compared with; ``'pixel_decoder'``, the output of the
            pixel decoder; or ``'embedding'``, the unit-length pixel feature that predicts the masks.
        activation, identity, stop_gradient, detach_class: see :func:`relax_mask_logits`.

    Raises:
        ValueError: unknown source or activation.
    """
    training_only = True

    def __init__(self,
                 semantic_head: ConfigDict,
                 source: str = 'pixel_space',
                 activation: str = 'sigmoid',
                 identity: bool = True,
                 stop_gradient: bool = True,
                 detach_class: bool = True) -> None:
        super().__init__()
        _check_choice('activation', activation, ACTIVATIONS)
        _check_choice('source', source, SOURCES)
        self.semantic_head = MODELS.build(semantic_head)
        self.source = source
        self.relax_masks = partial(
            relax_mask_logits,
            activation=activation,
            identity=identity,
            stop_gradient=stop_gradient,
            detach_class=detach_class)

    def forward(self, prediction: MaskPrediction, context: StageContext) -> MaskPrediction:
        """Add relaxed masks and semantic logits to a prediction.

        Args:
            prediction: of a decoder stage at its native resolution.
            context: of the same stage.

        Raises:
            ValueError: the context lacks the source.
        """
        if self.training_only and not self.training:
            return prediction
        features = context._asdict() | dict(embedding=prediction.pixel_feature)
        if features[self.source] is None:
            raise ValueError(f'Expected the context of ReMask to hold {self.source!r}, but got None')
        sem_logits = self.semantic_head(features[self.source])
        relaxed = self.relax_masks(prediction.mask_logits, prediction.class_logits, sem_logits)
        return prediction._replace(relaxed_mask_logits=relaxed, sem_logits=sem_logits)


def _check_choice(name: str, value: str, choices: Tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f'Expected the {name} of ReMask among {choices}, but got {value!r}.')
