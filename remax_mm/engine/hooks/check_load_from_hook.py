"""Check the weights of a checkpoint before a training starts from them."""
from typing import Any, List, Mapping, NamedTuple

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from .check_weights_hook import check_finite, first_names, read_weights, unwrap


class WeightComparison(NamedTuple):
    """Weights of a model and of a checkpoint.

    Attributes:
        fitting: Names of the weights of the model that the checkpoint has in the same shape.
        missing: Names of the other weights of the model that the checkpoint does not have.
        other_shape: Names and both shapes of those that it has in another shape.
        unknown: Names of the weights of the checkpoint that the model does not have.
    """
    fitting: List[str]
    missing: List[str]
    other_shape: List[str]
    unknown: List[str]


def compare_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> WeightComparison:
    """Compare all weights of a model, training-only parts included, with those of a checkpoint."""
    expected = {name: value.shape for name, value in unwrap(model).state_dict().items()}
    shared = [name for name in expected if name in weights]
    return WeightComparison(
        fitting=[name for name in shared if weights[name].shape == expected[name]],
        missing=[
            name for name in expected if name not in weights and not name.endswith('num_batches_tracked')
        ],
        other_shape=[
            f'{name} {tuple(weights[name].shape)} instead of {tuple(expected[name])}' for name in shared
            if weights[name].shape != expected[name]
        ],
        unknown=[name for name in weights if name not in expected])


@HOOKS.register_module()
class CheckLoadFromHook(Hook):
    """Check the checkpoint that a training starts from (``load_from``) or resumes.

    mmengine trains on with the initial values of all weights that do not fit. This hook logs the names of
    these weights.

    Raises:
        ValueError: no weight fits, a weight is not finite, or a resumed training has another model.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: Any) -> None:
        """Compare the checkpoint with the model; mmengine calls this before it copies the weights."""
        if not isinstance(runner._train_loop, BaseLoop):  # a test, which `CheckWeightsHook` checks
            return
        source = runner._load_from
        weights = read_weights(checkpoint, source)
        fitting, missing, other_shape, unknown = compare_weights(runner.model, weights)
        check_finite({name: weights[name] for name in fitting}, source)
        if not (missing or other_shape or unknown):
            return

        summary = (
            f'{len(missing)} are missing{first_names(missing)}, {len(other_shape)} have another shape'
            f'{first_names(other_shape)}, and {len(unknown)} are not in the model{first_names(unknown)}')
        if not fitting:
            raise ValueError(f'Expected {source} to have weights of the model, but none fits: {summary}')
        if runner._resume:
            raise ValueError(f'Expected {source} to be a checkpoint of this model, but {summary}')
        lines = [
            f'{len(fitting)} of {len(fitting) + len(missing) + len(other_shape)} weights come from {source}.',
            *(f'Not in the checkpoint: {name}' for name in missing),
            *(f'Of another shape: {name}' for name in other_shape), *(f'Not in the model: {name}'
                                                                      for name in unknown)
        ]
        runner.logger.warning('\n'.join(lines))
