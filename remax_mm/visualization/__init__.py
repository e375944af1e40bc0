"""Drawing of panoptic maps, and mmdet's visualizer with it."""
from .draw_panoptic import draw_panoptic, label_panels, shade, spread_colors
from .panoptic_visualizer import PanopticVisualizer

__all__ = ['PanopticVisualizer', 'draw_panoptic', 'label_panels', 'shade', 'spread_colors']
