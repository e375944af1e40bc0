"""Part of the report that trains ReMaX on the mini dataset."""
import statistics
from typing import Any, Dict, Iterator, List

from remax_mm.analysis.metric_logs import read_log
from remax_mm.apis.build_runner import build_runner
from remax_mm.apis.run_config import load_run_config, resume_training, use_mixed_precision
from remax_mm.model_names import find_config
from .part import Context
from .records import Case
from .scale import Scale
from .step_shares import mini_dataset

QUALITIES = ('PQ', 'SQ', 'RQ', 'PQ_th', 'PQ_st')
LOGGED = 20
"""Number of points of the curve of the loss."""


def list_mini_cases(scale: Scale) -> List[Case]:
    """One training."""
    return [Case('ReMaX, MobileNetV3-Small, mini dataset')]


def train_mini(context: Context) -> Iterator[Dict[str, Any]]:
    """Train in bfloat16, on a CPU in float32, and evaluate. A training that was stopped is resumed.

    Yields:
        ``precision``, ``iterations``, ``batch_size``; ``seconds`` of an iteration, the median of the log;
        ``metrics``, PQ and others in percent; ``loss``, pairs of iteration and loss.
    """
    scale, folder = context.scale, context.folder / 'mini_training'
    loaders = ('train', 'val', 'test')
    options: Dict[str, Any] = {
        f'{split}_dataloader.dataset.data_root': f'{mini_dataset(context)}/'
        for split in loaders
    }
    for split in loaders:
        options[f'{split}_dataloader.num_workers'] = scale.num_workers
        options[f'{split}_dataloader.persistent_workers'] = scale.num_workers > 0
    iterations = scale.mini_iterations
    options.update({
        'train_cfg.max_iters': iterations,
        'train_cfg.val_interval': iterations,
        'default_hooks.logger.interval': max(iterations // LOGGED, 1)
    })
    config = load_run_config(find_config('remax-mini'), options, str(folder))
    precision = 'bfloat16' if context.device == 'cuda' else 'float32'
    if precision == 'bfloat16':
        config = use_mixed_precision(config, precision)
    if (folder / 'last_checkpoint').is_file():
        config = resume_training(config)
    build_runner(config).train()

    log = read_log(folder, 'mini')
    yield dict(
        precision=precision,
        iterations=iterations,
        batch_size=config.train_dataloader.batch_size,
        seconds=statistics.median(seconds for _, seconds in log.curves['time']),
        metrics={quality: log.results[f'coco_panoptic/{quality}']
                 for quality in QUALITIES},
        loss=log.curves['loss'])
