from .load_panoptic_map import LoadPanopticMap
from .pack_panoptic_inputs import PackPanopticInputs

__all__ = ['LoadPanopticMap', 'PackPanopticInputs']
