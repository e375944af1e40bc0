"""Copy of a model without the parts that only training needs."""
import copy

from torch import nn


def inference_copy(model: nn.Module) -> nn.Module:
    """Copy ``model`` in evaluation mode, after ``drop_training_parts()`` of all parts with this method."""
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        drop_training_parts = getattr(module, 'drop_training_parts', None)
        if drop_training_parts is not None:
            drop_training_parts()
    return model
