from .mask_former_data_preprocessor import (DeviceMasks, MaskFormerDataPreprocessor, find_visible_things,
                                            split_segment_map)
from .panoptic_data_preprocessor import PanopticDataPreprocessor

__all__ = [
    'DeviceMasks', 'MaskFormerDataPreprocessor', 'find_visible_things', 'split_segment_map',
    'PanopticDataPreprocessor'
]
