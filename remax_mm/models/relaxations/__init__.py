from .remask import ReMask, relax_mask_logits, semantic_gate

__all__ = ['ReMask', 'relax_mask_logits', 'semantic_gate']
