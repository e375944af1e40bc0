# The import registers the modules.
from . import (backbones, data_preprocessors, detectors, heads, losses, pixel_decoders, relaxations,
               task_modules, test_time_augs, transformer_decoders)

__all__ = [
    'backbones', 'data_preprocessors', 'detectors', 'heads', 'losses', 'pixel_decoders', 'relaxations',
    'task_modules', 'test_time_augs', 'transformer_decoders'
]
