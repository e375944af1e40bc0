"""Hooks, training loops and optimizer constructors that mmengine and mmdet lack."""
from .hooks import (BackgroundRuntimeInfoHook, CheckClassesHook, CheckLoadFromHook, CheckWeightsHook,
                    FrozenRankHook, SafeCheckpointHook, StopOnSignalHook, WorkDirLockHook, check_weights,
                    one_sentence_if_disk_is_full, read_weights)
from .loops import ResumableTrainLoop
from .optimizers import KernelDecayOptimWrapperConstructor

__all__ = [
    'BackgroundRuntimeInfoHook', 'CheckClassesHook', 'CheckLoadFromHook', 'CheckWeightsHook',
    'FrozenRankHook', 'SafeCheckpointHook', 'StopOnSignalHook', 'WorkDirLockHook', 'check_weights',
    'one_sentence_if_disk_is_full', 'read_weights', 'KernelDecayOptimWrapperConstructor', 'ResumableTrainLoop'
]
