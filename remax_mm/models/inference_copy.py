"""A model as it runs at inference."""
import copy

from torch import nn


def inference_copy(model: nn.Module) -> nn.Module:
    """Copy of ``model`` in evaluation mode, after each part's ``drop_training_parts()`` where it has one."""
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        if hasattr(module, 'drop_training_parts'):
            module.drop_training_parts()
    return model
