from .channels_last_hook import ChannelsLastHook
from .check_classes_hook import CheckClassesHook
from .check_weights_hook import CheckWeightsHook, check_weights
from .frozen_rank_hook import FrozenRankHook
from .stop_on_signal_hook import StopOnSignalHook
from .work_dir_lock_hook import WorkDirLockHook

__all__ = [
    'ChannelsLastHook', 'CheckClassesHook', 'CheckWeightsHook', 'check_weights', 'FrozenRankHook',
    'StopOnSignalHook', 'WorkDirLockHook'
]
