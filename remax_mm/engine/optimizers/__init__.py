"""Optimizer constructors."""
from .kernel_decay_constructor import KernelDecayOptimWrapperConstructor, group_parameters, takes_decay

__all__ = ['KernelDecayOptimWrapperConstructor', 'group_parameters', 'takes_decay']
