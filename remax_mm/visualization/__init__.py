"""Drawing of panoptic maps, and mmdet's visualizer with it."""
from .colors import class_colors, shade, spread_colors
from .draw_panoptic import draw_panoptic, short_name
from .panels import enlarge_small, label_panels
from .panoptic_visualizer import PanopticVisualizer

__all__ = [
    'PanopticVisualizer', 'class_colors', 'draw_panoptic', 'enlarge_small', 'label_panels', 'shade',
    'short_name', 'spread_colors'
]
