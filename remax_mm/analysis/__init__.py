"""Analysis of models: size, loss balance, cost of training, comparison of runs."""
from .complexity import format_complexity, measure_complexity, measure_config
from .loss_balance import format_loss_balance
from .model_loss_balance import measure_loss_balance
from .training_overhead import measure_overhead

__all__ = [
    'format_complexity', 'measure_complexity', 'measure_config', 'format_loss_balance',
    'measure_loss_balance', 'measure_overhead'
]
