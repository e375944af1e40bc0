"""Hooks, training loops and optimizer constructors that mmengine and mmdet lack."""
from .hooks import (CheckClassesHook, CheckLoadFromHook, CheckWeightsHook, FrozenRankHook, SafeCheckpointHook,
                    StopOnSignalHook, WorkDirLockHook, check_weights, one_sentence_if_disk_is_full,
                    read_weights)
from .loops import ResumableTrainLoop
from .optimizers import KernelDecayOptimWrapperConstructor

__all__ = [
    'CheckClassesHook', 'CheckLoadFromHook', 'CheckWeightsHook', 'FrozenRankHook', 'SafeCheckpointHook',
    'StopOnSignalHook', 'WorkDirLockHook', 'check_weights', 'one_sentence_if_disk_is_full', 'read_weights',
    'KernelDecayOptimWrapperConstructor', 'ResumableTrainLoop'
]
