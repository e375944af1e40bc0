"""The weights that the numbers of ``tests/data/reference`` were computed with.

Every weight is drawn from a generator seeded by the weight's own key, so that a test can compute it from its
key and shape. The rules are in ``tests/data/reference/README.md``.
"""
import math
import zlib
from typing import Dict, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

RULES = ('B', 'C')


def is_norm_weight(key: str) -> bool:
    """Whether ``key`` names the scale of a norm layer; decided by the name alone."""
    parts = key.split('.')
    named_norm = len(parts) > 1 and 'norm' in parts[-2]
    in_norms = len(parts) > 2 and '_in_norms' in parts[-3]
    return parts[-1] == 'weight' and (named_norm or in_norms)


def reference_weight(key: str, shape: Sequence[int], rule: str = 'B') -> Tensor:
    """The weight that the reference numbers were computed with.

    Args:
        key: full name in the reference's state dict, starting with ``backbone.``,
            ``sem_seg_head.pixel_decoder.`` or ``sem_seg_head.predictor.``.
        rule: ``'B'`` for a part of the model; ``'C'`` for a whole model, whose residual branches are damped.

    Returns:
        float32 tensor of ``shape``; int64 zero for ``num_batches_tracked``.
    """
    if rule not in RULES:
        raise ValueError(f'Expected `rule` to be one of {RULES}, but got {rule!r}')
    if key.endswith('num_batches_tracked'):
        return torch.zeros(tuple(shape), dtype=torch.int64)

    generator = np.random.RandomState(zlib.crc32(key.encode()) % 2**31)
    value = np.asarray(generator.standard_normal(tuple(shape))).astype(np.float32)

    if is_norm_weight(key) or key.endswith('running_var'):
        value = np.abs(value) * np.float32(0.3) + np.float32(0.7)
        value = value * np.float32(_norm_factor(key, rule))
    elif key.endswith('.weight') and ('_rpe.' in key or '_cluster_centers' in key):
        pass
    elif key.endswith('weight') and len(shape) > 1:
        gain = 1.2 if rule == 'B' else 1.0
        value = value * np.float32(gain / math.sqrt(math.prod(shape[1:])))
    else:
        value = value * np.float32(0.1)
    return torch.from_numpy(np.ascontiguousarray(value))


def _norm_factor(key: str, rule: str) -> float:
    if key.endswith('_kmeans_query_batch_norm_retrieved_value.running_var'):
        return 400.0
    if rule == 'B':
        return 1.0
    if key.endswith('_batch_norm_similarity.weight'):
        return 0.05
    if key.endswith(('_conv3_bn.norm.weight', 'conv3.norm.weight', '_ffn_conv2_bn.norm.weight')):
        return 0.3
    return 1.0


def reference_state_dict(names: Mapping[str, str],
                         state_dict: Mapping[str, Tensor],
                         rule: str = 'B') -> Dict[str, Tensor]:
    """Weights of the reference for a module of ours.

    Args:
        names: our key -> the reference's key, for every entry of ``state_dict``.
        state_dict: of our module, for the shapes.

    Raises:
        KeyError: a key of ``state_dict`` has no name in the reference, or ``names`` has a key too many.
    """
    if set(names) != set(state_dict):
        raise KeyError(f'not named: {sorted(set(state_dict) - set(names))}, '
                       f'not in the module: {sorted(set(names) - set(state_dict))}')
    return {ours: reference_weight(theirs, state_dict[ours].shape, rule) for ours, theirs in names.items()}
