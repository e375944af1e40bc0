from .background_runtime_info_hook import BackgroundRuntimeInfoHook
from .check_classes_hook import CheckClassesHook
from .check_load_from_hook import CheckLoadFromHook
from .check_weights_hook import CheckWeightsHook, check_weights, read_weights
from .final_test_hook import FinalTestHook
from .frozen_rank_hook import FrozenRankHook
from .optimize_hook import OptimizeHook
from .safe_checkpoint_hook import SafeCheckpointHook, one_sentence_if_disk_is_full
from .stop_on_signal_hook import StopOnSignalHook
from .work_dir_lock_hook import WorkDirLockHook

__all__ = [
    'BackgroundRuntimeInfoHook', 'CheckClassesHook', 'CheckLoadFromHook', 'CheckWeightsHook', 'FinalTestHook',
    'FrozenRankHook', 'OptimizeHook', 'SafeCheckpointHook', 'StopOnSignalHook', 'WorkDirLockHook',
    'check_weights', 'one_sentence_if_disk_is_full', 'read_weights'
]
