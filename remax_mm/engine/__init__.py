"""What training needs beyond mmengine and mmdet."""
from .hooks import ChannelsLastHook
from .optimizers import KernelDecayOptimWrapperConstructor

__all__ = ['ChannelsLastHook', 'KernelDecayOptimWrapperConstructor']
