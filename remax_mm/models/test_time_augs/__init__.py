from .panoptic_tta import PanopticTTAModel, SlotProbabilities, View, add_view, match_slots, scaled_canvas

__all__ = ['PanopticTTAModel', 'SlotProbabilities', 'View', 'add_view', 'match_slots', 'scaled_canvas']
