"""Config of a detector that segments by color, see :mod:`tests.color_model`; its dataset is in a wrapper."""
from mmengine.config import Config

from tests.color_model import color_detector
from tests.missing_dataset import missing_dataset

TRAINING_OPTIONS = dict(
    optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
    auto_scale_lr=dict(enable=False, base_batch_size=64),
    default_hooks=dict(visualization=dict(type='DetVisualizationHook')),
    test_evaluator=dict(type='PanopticQualityMetric'))
"""What the options of runs change, beside the model and the test data."""


def color_config(**options):
    """The config, with ``options`` at its top. No file of it exists."""
    metainfo = dict(
        classes=('cat', 'dog', 'sky', 'grass'), thing_classes=('cat', 'dog'), stuff_classes=('sky', 'grass'))
    pipeline = [
        dict(type='LoadImageStrict'),
        dict(type='Resize', scale=(65, 65), keep_ratio=True),
        dict(type='LoadPanopticMap'),
        dict(type='PackPanopticInputs')
    ]
    dataset = missing_dataset(metainfo, pipeline)
    return Config(
        dict(
            default_scope='mmdet',
            model=color_detector(),
            test_dataloader=dict(dataset=dict(type='RepeatDataset', times=1, dataset=dataset)),
            **options))
