"""Hooks and optimizer constructors that mmengine and mmdet lack."""
from .hooks import ChannelsLastHook, CheckClassesHook, CheckWeightsHook, check_weights
from .optimizers import KernelDecayOptimWrapperConstructor

__all__ = [
    'ChannelsLastHook', 'CheckClassesHook', 'CheckWeightsHook', 'check_weights',
    'KernelDecayOptimWrapperConstructor'
]
