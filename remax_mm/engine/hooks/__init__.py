from .channels_last_hook import ChannelsLastHook
from .check_classes_hook import CheckClassesHook
from .check_weights_hook import CheckWeightsHook, check_weights
from .safe_checkpoint_hook import SafeCheckpointHook, one_sentence_if_disk_is_full

__all__ = [
    'ChannelsLastHook', 'CheckClassesHook', 'CheckWeightsHook', 'SafeCheckpointHook', 'check_weights',
    'one_sentence_if_disk_is_full'
]
