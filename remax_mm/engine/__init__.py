"""What training needs beyond mmengine and mmdet."""
from .optimizers import KernelDecayOptimWrapperConstructor

__all__ = ['KernelDecayOptimWrapperConstructor']
