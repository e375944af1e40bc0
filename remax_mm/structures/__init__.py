"""NamedTuples that travel between the parts of a model, and ``full_precision``."""
from .dual_path_features import DualPathFeatures
from .full_precision import full_precision
from .mask_prediction import MaskPrediction
from .match import Match
from .panoptic_targets import VOID_SEGMENT, PanopticTargets
from .slot_targets import SlotTargets
from .stage_context import StageContext

__all__ = [
    'DualPathFeatures', 'full_precision', 'MaskPrediction', 'Match', 'VOID_SEGMENT', 'PanopticTargets',
    'SlotTargets', 'StageContext'
]
