"""Analysis of models: loss balance, cost of training, comparison of runs.

The size of a model is in :mod:`remax_mm.analysis.complexity`, which needs torch 2.1.
"""
from .loss_balance import format_loss_balance
from .model_loss_balance import measure_loss_balance
from .training_overhead import measure_overhead

__all__ = ['format_loss_balance', 'measure_loss_balance', 'measure_overhead']
