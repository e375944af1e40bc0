"""Drawing of panoptic maps."""
from .draw_panoptic import draw_panoptic, label_panels, shade, spread_colors
from .panoptic_visualizer import PanopticVisualizer, annotated_panoptic_map, to_panoptic_map

__all__ = [
    'PanopticVisualizer', 'annotated_panoptic_map', 'draw_panoptic', 'label_panels', 'shade', 'spread_colors',
    'to_panoptic_map'
]
