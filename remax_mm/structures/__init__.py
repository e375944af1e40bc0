from .dual_path_features import DualPathFeatures
from .mask_prediction import MaskPrediction
from .match import Match
from .panoptic_targets import PanopticTargets, build_panoptic_targets
from .slot_targets import SlotTargets, assign_targets_to_slots

__all__ = [
    'DualPathFeatures', 'MaskPrediction', 'Match', 'PanopticTargets', 'build_panoptic_targets', 'SlotTargets',
    'assign_targets_to_slots'
]
