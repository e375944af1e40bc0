from .mask_prediction import MaskPrediction
from .match import Match
from .panoptic_targets import PanopticTargets, build_panoptic_targets

__all__ = ['MaskPrediction', 'Match', 'PanopticTargets', 'build_panoptic_targets']
