"""Hooks, training loops and optimizer constructors that mmengine and mmdet lack."""
from .hooks import (ChannelsLastHook, CheckClassesHook, CheckWeightsHook, FrozenRankHook, StopOnSignalHook,
                    WorkDirLockHook, check_weights)
from .loops import ResumableTrainLoop
from .optimizers import KernelDecayOptimWrapperConstructor

__all__ = [
    'ChannelsLastHook', 'CheckClassesHook', 'CheckWeightsHook', 'FrozenRankHook', 'StopOnSignalHook',
    'WorkDirLockHook', 'check_weights', 'KernelDecayOptimWrapperConstructor', 'ResumableTrainLoop'
]
