"""Comparisons with MMDetection: time of the training pipeline and of PQ, memory of the targets."""
from .metric_speed import compare_metrics
from .pipeline_speed import compare_pipelines
from .target_memory import compare_targets

__all__ = ['compare_metrics', 'compare_pipelines', 'compare_targets']
