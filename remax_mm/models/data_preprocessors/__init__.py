from .mask_former_data_preprocessor import DeviceMasks, MaskFormerDataPreprocessor, split_segment_map
from .panoptic_data_preprocessor import PanopticDataPreprocessor

__all__ = ['DeviceMasks', 'MaskFormerDataPreprocessor', 'split_segment_map', 'PanopticDataPreprocessor']
