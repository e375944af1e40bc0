"""What training needs beyond mmengine and mmdet."""
from .hooks import ChannelsLastHook, CheckClassesHook
from .optimizers import KernelDecayOptimWrapperConstructor

__all__ = ['ChannelsLastHook', 'CheckClassesHook', 'KernelDecayOptimWrapperConstructor']
