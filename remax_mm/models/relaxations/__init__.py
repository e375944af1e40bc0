from .reclass import ReClass, class_coverage, relax_class_targets
from .remask import ReMask, build_remask, relax_mask_logits, semantic_gate
from .remask_variants import GroundTruthReMask, ReMaskAtTest, ground_truth_gate

__all__ = [
    'ReClass', 'class_coverage', 'relax_class_targets', 'ReMask', 'build_remask', 'relax_mask_logits',
    'semantic_gate', 'GroundTruthReMask', 'ReMaskAtTest', 'ground_truth_gate'
]
