"""A tiny ReMaX in mmengine's runner: dataset, pipeline, training, evaluation, checkpoint, resuming."""
import json
import math

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from remax_mm.panoptic_format import write_segment_ids
from tests.tiny_model import NUM_THINGS, detector_config

CLASSES = ['ball', 'box', 'tree', 'grass', 'sky']
METAINFO = dict(
    classes=CLASSES,
    thing_classes=CLASSES[:NUM_THINGS],
    stuff_classes=CLASSES[NUM_THINGS:],
    palette=[(40 * label, 200 - 30 * label, 90) for label in range(len(CLASSES))])


@pytest.fixture(autouse=True)
def _mmdet_scope():
    # The runner sets the default scope and does not restore it, which would change other tests.
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    """Two images of 65x49 pixels: grass below sky, a ball, a box, and an unlabeled corner."""
    root = tmp_path_factory.mktemp('drawn')
    images, annotations = [], []
    for index in range(2):
        ids = np.full((49, 65), 4)  # sky
        ids[25:] = 3  # grass
        ids[10:30, 8 + 20 * index:24 + 20 * index] = 1  # ball
        ids[30:45, 40:60] = 2  # box
        ids[:5, :5] = 0
        colors = np.array([[0, 0, 0], [220, 40, 40], [40, 40, 220], [60, 160, 60], [230, 200, 140]], np.uint8)
        mmcv.imwrite(colors[ids], str(root / f'images/{index}.png'))
        write_segment_ids(root / f'panoptic/{index}.png', ids * 1000)
        images.append(dict(id=index, file_name=f'{index}.png', height=49, width=65))
        segments = [
            dict(id=1000 * (row + 1), category_id=category, iscrowd=0)
            for row, category in enumerate((1, 2, 4, 5))
        ]
        annotations.append(dict(image_id=index, file_name=f'{index}.png', segments_info=segments))
    categories = [
        dict(id=label + 1, name=name, isthing=int(label < NUM_THINGS)) for label, name in enumerate(CLASSES)
    ]
    (root / 'panoptic.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return root


def _dataloader(data_root, training):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(65, 65), keep_ratio=True),
        dict(type='LoadPanopticMap'),
        dict(type='PackPanopticInputs')
    ]
    if training:
        pipeline.insert(3, dict(type='RandomFlip', prob=0.5))
    dataset = dict(
        type='CocoPanopticMapDataset',
        data_root=str(data_root),
        ann_file='panoptic.json',
        data_prefix=dict(img='images', seg='panoptic'),
        metainfo=METAINFO,
        test_mode=not training,
        pipeline=pipeline)
    sampler = dict(type='InfiniteSampler' if training else 'DefaultSampler', shuffle=training)
    return dict(batch_size=2, num_workers=0, persistent_workers=False, sampler=sampler, dataset=dataset)


def _runner(data_root, work_dir, iterations, resume=False):
    evaluator = dict(type='PanopticQualityMetric')
    model = detector_config(relaxed=True)
    for loss in ('loss_insdis', 'loss_sem'):
        model['panoptic_head']['criterion'][loss]['num_samples'] = 0  # all pixels: losses with less noise
    config = ConfigDict(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=_dataloader(data_root, training=True),
        val_dataloader=_dataloader(data_root, training=False),
        val_evaluator=evaluator,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations),
        val_cfg=dict(type='ValLoop'),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
            constructor='KernelDecayOptimWrapperConstructor'),
        param_scheduler=[dict(type='MultiStepLR', by_epoch=False, milestones=[4], gamma=0.1, end=5)],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=iterations, save_last=True)),
        log_processor=dict(by_epoch=False, window_size=1),
        randomness=dict(seed=0),
        resume=resume,
        default_scope='mmdet',
        experiment_name=f'{work_dir.name}_{iterations}_{resume}')
    return Runner.from_cfg(config)


def _logged(work_dir):
    """Lines of the last run's log: losses of training steps, and metrics of evaluation."""
    log = sorted(work_dir.glob('*/vis_data/scalars.json'))[-1]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if 'loss' in line], [line for line in lines if 'coco_panoptic/PQ' in line]


@pytest.fixture(scope='module')
def trained(data_root, tmp_path_factory):
    """Folder of a run of three iterations, and its runner."""
    work_dir = tmp_path_factory.mktemp('run')
    with DefaultScope.overwrite_default_scope('mmdet'):
        runner = _runner(data_root, work_dir, iterations=3)
        runner.train()
    return work_dir, runner


def test_runner__trains_and_evaluates(trained):
    work_dir, _ = trained
    losses, metrics = _logged(work_dir)
    assert [line['step'] for line in losses] == [1, 2, 3]
    assert all(math.isfinite(value) for line in losses for value in line.values())
    assert {'loss_cls', 'loss_sem', 'd0.loss_sem', 'd1.loss_sem', 'd2.loss_insdis'} <= set(losses[0])
    assert losses[-1]['loss'] < losses[0]['loss']
    assert len(metrics) == 1 and 0 <= metrics[0]['coco_panoptic/PQ'] <= 100
    assert {'coco_panoptic/PQ_th', 'coco_panoptic/PQ_st', 'coco_panoptic/SQ'} <= set(metrics[0])


def test_runner__checkpoint_loads_safely(trained):
    work_dir, runner = trained
    checkpoint = torch.load(work_dir / 'iter_3.pth', map_location='cpu', weights_only=True)
    assert checkpoint['meta']['iter'] == 3
    weights = runner.model.state_dict()
    assert checkpoint['state_dict'].keys() == weights.keys()
    assert all(torch.equal(checkpoint['state_dict'][key], value) for key, value in weights.items())


def test_runner__resumes_from_the_last_checkpoint(data_root, trained):
    work_dir, before = trained
    runner = _runner(data_root, work_dir, iterations=5, resume=True)
    seen = {}

    class RecordState(Hook):

        def before_train(self, runner):
            seen.update(
                iteration=runner.iter,
                weights={
                    key: value.clone()
                    for key, value in runner.model.state_dict().items()
                },
                steps={int(state['step'])
                       for state in runner.optim_wrapper.optimizer.state.values()})

    runner.register_hook(RecordState(), priority='LOWEST')
    runner.train()
    assert seen['iteration'] == 3 and seen['steps'] == {3}
    assert all(torch.equal(seen['weights'][key], value) for key, value in before.model.state_dict().items())

    losses, metrics = _logged(work_dir)
    assert [line['step'] for line in losses] == [4, 5]
    assert [line['lr'] for line in losses] == pytest.approx([2e-3, 2e-4])
    assert runner.iter == 5 and len(metrics) == 1
