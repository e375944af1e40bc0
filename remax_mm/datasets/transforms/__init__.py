from .color_policy import ColorPolicy
from .load_image_strict import LoadImageStrict
from .load_panoptic_map import LoadPanopticMap
from .load_segment_ids import LoadSegmentIds
from .pack_panoptic_inputs import PackPanopticInputs
from .panoptic_copy_paste import PanopticCopyPaste
from .random_pad import RandomPad

__all__ = [
    'ColorPolicy', 'LoadImageStrict', 'LoadPanopticMap', 'LoadSegmentIds', 'PackPanopticInputs',
    'PanopticCopyPaste', 'RandomPad'
]
