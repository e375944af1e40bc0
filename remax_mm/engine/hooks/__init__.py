from .channels_last_hook import ChannelsLastHook
from .check_classes_hook import CheckClassesHook
from .check_weights_hook import CheckWeightsHook, check_weights
from .stop_on_signal_hook import StopOnSignalHook

__all__ = ['ChannelsLastHook', 'CheckClassesHook', 'CheckWeightsHook', 'check_weights', 'StopOnSignalHook']
