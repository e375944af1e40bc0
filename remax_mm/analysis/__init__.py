"""Analysis of models: loss balance, cost of training, comparison of runs.

The size of a model is in :mod:`remax_mm.analysis.complexity`, which needs torch 2.1.
"""
