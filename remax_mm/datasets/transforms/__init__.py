from .color_policy import ColorPolicy
from .load_intact_image import LoadIntactImage
from .load_panoptic_map import LoadPanopticMap
from .pack_panoptic_inputs import PackPanopticInputs
from .panoptic_copy_paste import PanopticCopyPaste
from .random_pad import RandomPad

__all__ = [
    'ColorPolicy', 'LoadIntactImage', 'LoadPanopticMap', 'PackPanopticInputs', 'PanopticCopyPaste',
    'RandomPad'
]
