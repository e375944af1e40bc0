from .reclass import ReClass, class_coverage, relax_class_targets
from .remask import (GroundTruthReMask, ReMask, ReMaskAtTest, StageContext, ground_truth_gate,
                     relax_mask_logits, semantic_gate)

__all__ = [
    'ReClass', 'class_coverage', 'relax_class_targets', 'GroundTruthReMask', 'ReMask', 'ReMaskAtTest',
    'StageContext', 'ground_truth_gate', 'relax_mask_logits', 'semantic_gate'
]
