"""Options of a config for tests and predictions: each function takes a config and returns a changed copy."""
import copy
from typing import List, Optional, Sequence, Union

from mmengine.config import Config, ConfigDict
from mmengine.fileio import join_path
from mmengine.utils import is_abs

from remax_mm.panoptic_format.submission import submission_paths
from .run_config import check_checkpoint, dataset_config, loads_annotation, type_name

AP_METRIC, IOU_METRIC = 'PanopticInstanceAPMetric', 'PanopticSemanticIoUMetric'


def load_weights(config: Config, checkpoint: str) -> Config:
    """Test the weights of a checkpoint, which must fill the model (:class:`CheckWeightsHook`).

    Args:
        checkpoint: File or URL.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    check_checkpoint(checkpoint)
    config = copy.deepcopy(config)
    config.load_from = checkpoint
    config.custom_hooks = [*config.get('custom_hooks', ()), dict(type='CheckWeightsHook')]
    return config


def evaluate_all_tasks(config: Config, instance_ann: Optional[str] = None) -> Config:
    """Predict instances and semantic maps too, and evaluate them with AP and mIoU besides PQ.

    Metrics of the config stay; new ones take ``classwise`` and ``backend_args`` of the first one.

    Args:
        instance_ann: Instance annotations for AP. None takes those of the config, or the thing segments of
            the panoptic annotations.
    """
    config = copy.deepcopy(config)
    all_tasks = dict(panoptic_on=True, instance_on=True, semantic_on=True)
    config.model.test_cfg = dict(config.model.get('test_cfg') or {}, **all_tasks)
    evaluators = _test_evaluators(config)
    shared = {key: evaluators[0][key] for key in ('classwise', 'backend_args') if key in evaluators[0]}
    present = {type_name(evaluator) for evaluator in evaluators}
    evaluators += [dict(type=metric, **shared) for metric in (AP_METRIC, IOU_METRIC) if metric not in present]
    if instance_ann:
        next(e for e in evaluators if type_name(e) == AP_METRIC)['ann_file'] = instance_ann
    config.test_evaluator = evaluators
    return config


def format_only(config: Config, prefix: str) -> Config:
    """Export the predictions in the COCO panoptic format without an evaluation.

    Ground truth is not read: the ``ann_file`` of the test dataset needs ``images`` and ``categories`` only.

    Args:
        prefix: Path of the JSON file and of the PNG folder, without suffix.
    """
    config = copy.deepcopy(config)
    dataset = dataset_config(config)
    dataset.get('data_prefix', {}).pop('seg', None)
    dataset.pipeline = [step for step in dataset.pipeline if not loads_annotation(step)]
    ann_file, data_root = dataset.ann_file, dataset.get('data_root')
    config.test_evaluator = dict(
        type='PanopticQualityMetric',
        format_only=True,
        outfile_prefix=prefix,
        ann_file=join_path(data_root, ann_file) if data_root and not is_abs(ann_file) else ann_file,
        backend_args=dataset.get('backend_args'))
    return config


def check_prefixes(config: Config) -> None:
    """Check that no metric exports its predictions to existing files.

    Raises:
        FileExistsError: a JSON file, PNG folder or archive with the prefix of a metric exists.
    """
    for evaluator in _test_evaluators(config):
        prefix = evaluator.get('outfile_prefix')
        existing = [] if prefix is None else [path for path in submission_paths(prefix) if path.exists()]
        if existing:
            raise FileExistsError(f'Expected a new prefix for the predictions, but {existing[0]} exists')


def use_tta(config: Config) -> Config:
    """Test-time augmentation: predict from several views of each image.

    The views are ``tta_pipeline`` and ``tta_model`` of the config, as for mmdet's tools. If it has none, they
    are the image of the test pipeline and its mirror image, merged by :class:`PanopticTTAModel`.

    Args:
        config: Options of the model must be set before, because the model is wrapped.
    """
    config = copy.deepcopy(config)
    dataset = dataset_config(config)
    if 'tta_pipeline' in config:
        dataset.pipeline = config.tta_pipeline
    else:
        *steps, pack = dataset.pipeline
        flips = [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1.)]
        dataset.pipeline = [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    config.model = ConfigDict(config.get('tta_model', dict(type='PanopticTTAModel')), module=config.model)
    return config


def use_tiles(config: Config, tile_size: Union[int, Sequence[int]], overlap: int = 128) -> Config:
    """Tiled inference: predict from overlapping tiles of each image at its original size.

    The test pipeline loses its resize step.

    Args:
        config: Options of the model must be set before, because the model is wrapped.
        tile_size, overlap: In pixels, see :class:`TiledPanopticModel`.
    """
    config = copy.deepcopy(config)
    dataset = dataset_config(config)
    dataset.pipeline = [step for step in dataset.pipeline if not type_name(step).endswith('Resize')]
    config.model = ConfigDict(
        type='TiledPanopticModel', module=config.model, tile_size=tile_size, overlap=overlap)
    return config


def optimize_before_test(config: Config, dtype: str = 'float32') -> Config:
    """Optimize the model with the loaded weights before a test, see :class:`OptimizeHook`."""
    config = copy.deepcopy(config)
    config.custom_hooks = [*config.get('custom_hooks', ()), dict(type='OptimizeHook', dtype=dtype)]
    return config


def draw_predictions(config: Config,
                     show: bool = False,
                     show_dir: Optional[str] = None,
                     wait_time: float = 2.) -> Config:
    """Draw the input, ground truth and prediction of each test image.

    Args:
        show: Whether to open a window.
        show_dir: Folder for the pictures; a relative path is below ``work_dir/<time>``. None keeps that of
            the config.
        wait_time: Seconds between two pictures in the window.

    Raises:
        ValueError: the config has no visualization hook.
    """
    if 'visualization' not in config.get('default_hooks', {}):
        raise ValueError(
            f'Expected `default_hooks.visualization` in {config.filename} for --show and --show-dir')
    config = copy.deepcopy(config)
    hook = config.default_hooks.visualization
    hook.update(draw=True, show=show, wait_time=wait_time)
    if show_dir:
        hook.test_out_dir = show_dir
    return config


def _test_evaluators(config: Config) -> List[dict]:
    evaluators = config.test_evaluator
    return list(evaluators) if isinstance(evaluators, list) else [evaluators]
