"""Check that a checkpoint has all weights of the tested model."""
from typing import Any, Mapping, Sequence

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from remax_mm.models.inference_copy import inference_copy


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Check that all weights that a model uses at inference are given.

    Weights of training-only parts may be missing, and there may be weights that the model does not have.

    Args:
        model: not changed. Wrappers of the model (data parallel, test-time augmentation) are not part of the
            names.
        weights: weights by name.
        source: origin of the weights, for the error message.

    Raises:
        ValueError: weights are missing, or of another shape.
    """
    unwrapped: Any = model
    while is_model_wrapper(unwrapped) or isinstance(unwrapped, BaseTTAModel):
        unwrapped = unwrapped.module
    expected = {
        name: value.shape
        for name, value in inference_copy(unwrapped).state_dict().items()
        if not name.endswith('num_batches_tracked')
    }
    missing = [name for name in expected if name not in weights]
    other_shape = [
        f'{name} {tuple(weights[name].shape)} instead of {tuple(shape)}' for name, shape in expected.items()
        if name in weights and weights[name].shape != shape
    ]
    if missing or other_shape:
        raise ValueError(f'Expected {source} to have all {len(expected)} weights of the model, but '
                         f'{len(missing)} are missing{_first_names(missing)} and '
                         f'{len(other_shape)} have another shape{_first_names(other_shape)}')


def _first_names(names: Sequence[str]) -> str:
    """The first three names in parentheses."""
    return f' ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})' if names else ''


@HOOKS.register_module()
class CheckWeightsHook(Hook):
    """Raise an error before a test if the checkpoint does not have all weights of the model.

    mmengine only logs such weights and continues with their initial values.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the model; mmengine calls this before it copies the weights."""
        check_weights(runner.model, checkpoint.get('state_dict', checkpoint), runner.cfg.load_from)
