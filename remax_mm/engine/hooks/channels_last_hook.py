"""Memory format of the model."""
import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Convert the convolution weights, and thereby the feature maps, to channels-last memory format.

    The results are the same. Depthwise convolutions on a CPU and half-precision convolutions on a GPU are
    faster (https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html).
    """

    def before_run(self, runner: Runner) -> None:
        """Convert once, before the first iteration of training, validation or testing."""
        runner.model.to(memory_format=torch.channels_last)
