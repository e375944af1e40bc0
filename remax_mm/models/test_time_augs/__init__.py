from .panoptic_tta import (PanopticTTAModel, SlotProbabilities, SlotRows, View, add_view, match_slots,
                           scaled_canvas)
from .stitch_tiles import (Span, StitchedSegments, TilePrediction, Window, matching_things, plan_tiles,
                           split_axis, stitch_tiles)
from .tiled_panoptic import TiledPanopticModel

__all__ = [
    'PanopticTTAModel', 'SlotProbabilities', 'SlotRows', 'View', 'add_view', 'match_slots', 'scaled_canvas',
    'Span', 'StitchedSegments', 'TilePrediction', 'Window', 'matching_things', 'plan_tiles', 'split_axis',
    'stitch_tiles', 'TiledPanopticModel'
]
