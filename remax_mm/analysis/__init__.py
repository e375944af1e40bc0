from .complexity import (Complexity, PartComplexity, count_macs, count_parameters, format_complexity,
                         inference_copy, measure_complexity, measure_config)

__all__ = [
    'Complexity', 'PartComplexity', 'count_macs', 'count_parameters', 'format_complexity', 'inference_copy',
    'measure_complexity', 'measure_config'
]
