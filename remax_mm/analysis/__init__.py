"""Analysis of models: size, loss balance, cost of training, comparison of runs."""
from .comparison import Spread, compare_runs, format_comparison, measure_spread, read_final_metrics
from .complexity import (Complexity, PartComplexity, count_macs, count_parameters, format_complexity,
                         measure_complexity, measure_config)
from .fusion_cost import (FusionComparison, FusionCost, checked_out, compare_fusion, compare_results,
                          format_fusion_comparisons, measure_fusion)
from .loss_balance import (LossParts, format_loss_balance, logarithmic_edges, split_sigmoid_cross_entropy,
                           split_softmax_cross_entropy, summarize_loss_balance)
from .model_loss_balance import (collect_loss_balance, collect_query_balance, measure_loss_balance,
                                 split_mask_id_loss)
from .training_overhead import (InferenceDifference, Overhead, StepCost, build_training_step, compare_costs,
                                compare_inference, measure_steps)

__all__ = [
    'Spread', 'compare_runs', 'format_comparison', 'measure_spread', 'read_final_metrics', 'Complexity',
    'PartComplexity', 'count_macs', 'count_parameters', 'format_complexity', 'measure_complexity',
    'measure_config', 'FusionComparison', 'FusionCost', 'checked_out', 'compare_fusion', 'compare_results',
    'format_fusion_comparisons', 'measure_fusion', 'LossParts', 'format_loss_balance', 'logarithmic_edges',
    'split_sigmoid_cross_entropy', 'split_softmax_cross_entropy', 'summarize_loss_balance',
    'collect_loss_balance', 'collect_query_balance', 'measure_loss_balance', 'split_mask_id_loss',
    'InferenceDifference', 'Overhead', 'StepCost', 'build_training_step', 'compare_costs',
    'compare_inference', 'measure_steps'
]
