from .channels_last_hook import ChannelsLastHook
from .check_classes_hook import CheckClassesHook

__all__ = ['ChannelsLastHook', 'CheckClassesHook']
