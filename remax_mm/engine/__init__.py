"""Hooks and optimizer constructors that mmengine and mmdet lack."""
from .hooks import (ChannelsLastHook, CheckClassesHook, CheckWeightsHook, SafeCheckpointHook, check_weights,
                    one_sentence_if_disk_is_full)
from .optimizers import KernelDecayOptimWrapperConstructor

__all__ = [
    'ChannelsLastHook', 'CheckClassesHook', 'CheckWeightsHook', 'SafeCheckpointHook', 'check_weights',
    'one_sentence_if_disk_is_full', 'KernelDecayOptimWrapperConstructor'
]
