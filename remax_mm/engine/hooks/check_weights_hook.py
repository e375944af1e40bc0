"""Check the weights of a checkpoint before a model is tested with them."""
import re
from collections import OrderedDict
from typing import Any, Mapping, Sequence

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from remax_mm.models.inference_copy import inference_copy


def read_weights(checkpoint: Any, source: str) -> Mapping[str, Tensor]:
    """The weights of a loaded checkpoint by name, without the prefix of a parallel model.

    Args:
        checkpoint: A dict with ``state_dict``, or the weights themselves.
        source: Origin of the checkpoint, for the error message.

    Raises:
        ValueError: there are no weights.
    """
    content = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(content, dict):
        raise ValueError(f'Expected {source} to have weights by name, but it has a {type(content).__name__}')
    weights = OrderedDict((re.sub(r'^module\.', '', name), value) for name, value in content.items()
                          if isinstance(name, str) and isinstance(value, Tensor))
    if not weights:
        raise ValueError(f'Expected {source} to have weights by name, but it has none')
    # Versions of the modules, which decide how they read their weights.
    setattr(weights, '_metadata', getattr(content, '_metadata', OrderedDict()))
    return weights


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Check that all weights that a model uses at inference are given, and are finite.

    Weights of training-only parts may be missing, and there may be weights that the model does not have.

    Args:
        model: not changed. Wrappers of the model (data parallel, test-time augmentation) are not part of the
            names.
        weights: weights by name.
        source: origin of the weights, for the error message.

    Raises:
        ValueError: weights are missing, of another shape, or not finite.
    """
    expected = {
        name: value.shape
        for name, value in inference_copy(unwrap(model)).state_dict().items()
        if not name.endswith('num_batches_tracked')
    }
    missing = [name for name in expected if name not in weights]
    other_shape = [
        f'{name} {tuple(weights[name].shape)} instead of {tuple(shape)}' for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    if missing or other_shape:
        raise ValueError(f'Expected {source} to have all {len(expected)} weights of the model, but '
                         f'{len(missing)} are missing{first_names(missing)} and '
                         f'{len(other_shape)} have another shape{first_names(other_shape)}')
    check_finite({name: weights[name] for name in expected}, source)


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """
    Raises:
        ValueError: a weight is NaN or infinite.
    """
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(
            f'Expected {source} to have finite weights, but {len(broken)} of {len(weights)} are NaN '
            f'or infinite{first_names(broken)}')


def unwrap(model: Any) -> nn.Module:
    """The model without wrappers for parallel training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def first_names(names: Sequence[str]) -> str:
    """The first three names in parentheses."""
    return f' ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})' if names else ''


@HOOKS.register_module()
class CheckWeightsHook(Hook):
    """Raise an error before a test if the checkpoint does not have all weights of the model, or broken ones.

    mmengine only logs missing weights and continues with their initial values.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: Any) -> None:
        """Compare the checkpoint with the model; mmengine calls this before it copies the weights."""
        source = runner.cfg.load_from
        check_weights(runner.model, read_weights(checkpoint, source), source)
