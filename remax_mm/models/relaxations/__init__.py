from .reclass import ReClass, class_coverage, relax_class_targets
from .remask import ReMask, relax_mask_logits, semantic_gate

__all__ = ['ReClass', 'class_coverage', 'relax_class_targets', 'ReMask', 'relax_mask_logits', 'semantic_gate']
