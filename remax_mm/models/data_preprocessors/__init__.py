from .panoptic_data_preprocessor import PanopticDataPreprocessor

__all__ = ['PanopticDataPreprocessor']
