"""Whether a checkpoint fills the model that is tested."""
from typing import Mapping, Sequence

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from remax_mm.models.inference_copy import inference_copy


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Compare weights with what a model runs on at inference.

    What exists in training only may be missing, and weights that the model has no place for are no harm.

    Args:
        model: left as it is; what wraps it is no part of the names.
        weights: by name.
        source: where they come from, for the message.

    Raises:
        ValueError: weights are missing, or of another shape.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    wanted = {
        name: value.shape
        for name, value in inference_copy(model).state_dict().items()
        if not name.endswith('num_batches_tracked')
    }
    missing = [name for name in wanted if name not in weights]
    misshapen = [
        f'{name} {tuple(weights[name].shape)} instead of {tuple(shape)}' for name, shape in wanted.items()
        if name in weights and weights[name].shape != shape
    ]
    if missing or misshapen:
        raise ValueError(f'Expected the weights in {source} to fill the {len(wanted)} of the model, but '
                         f'{len(missing)} are missing{_listed(missing)} and '
                         f'{len(misshapen)} have another shape{_listed(misshapen)}')


def _listed(names: Sequence[str], most: int = 3) -> str:
    return f' ({", ".join(names[:most])}{", ..." if len(names) > most else ""})' if names else ''


@HOOKS.register_module()
class CheckWeightsHook(Hook):
    """Stop before a test on weights that are not all from the checkpoint.

    mmengine logs which weights do not fit and goes on with those that the model was initialized with.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the checkpoint with the model; mmengine calls this before the weights go there."""
        check_weights(runner.model, checkpoint.get('state_dict', checkpoint), runner.cfg.load_from)
