"""What training needs beyond mmengine and mmdet."""
from .hooks import ChannelsLastHook, CheckClassesHook, CheckWeightsHook, check_weights
from .optimizers import KernelDecayOptimWrapperConstructor

__all__ = [
    'ChannelsLastHook', 'CheckClassesHook', 'CheckWeightsHook', 'check_weights',
    'KernelDecayOptimWrapperConstructor'
]
