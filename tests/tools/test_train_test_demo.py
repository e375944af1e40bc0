"""Training, resuming, testing, browsing and the demo, with a model of one convolution."""
import json
import runpy
import shutil
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch

from remax_mm.panoptic_format import read_segment_ids, write_segment_ids

REPOSITORY = Path(__file__).resolve().parents[2]

MODEL = """
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from mmengine.structures import PixelData


@MODELS.register_module(force=True)
class BrightnessDetector(BaseModel):
    '''Dark pixels are a thing (label 0), bright ones are stuff (label 1); one convolution is trained.'''

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor=dict(type='mmdet.DetDataPreprocessor'))
        self.conv = torch.nn.Conv2d(3, 1, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        brightness = inputs.float().mean(1)
        if mode == 'loss':
            return dict(loss_mean=self.conv(inputs.float() / 255).square().mean())
        for sample, image in zip(data_samples, brightness):
            panoptic_map = torch.where(image > 128, 1, 1000).int()
            infos = [dict(id=1000, label=0, is_thing=True, score=0.9),
                     dict(id=1, label=1, is_thing=False, score=0.4)]
            meta = dict(segments_info=infos)
            sample.pred_panoptic_seg = PixelData(sem_seg=panoptic_map[None], metainfo=meta)
        return data_samples
"""

CONFIG = """
_base_ = '{repository}/configs/_base_/default_runtime.py'
custom_imports = dict(imports=['remax_mm', 'brightness_detector'], allow_failed_imports=False)
model = dict(type='BrightnessDetector')
metainfo = dict(classes=('cat', 'sky'), thing_classes=('cat', ), stuff_classes=('sky', ),
                palette=[(200, 0, 0), (0, 0, 200)])
dataset = dict(type='CocoPanopticMapDataset', data_root='{root}', ann_file='panoptic.json', metainfo=metainfo,
               data_prefix=dict(img='images', seg='panoptic'),
               pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadPanopticMap'),
                         dict(type='PackPanopticInputs')])
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'), dataset=dataset)
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(dataset, test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(type='PanopticQualityMetric', classwise=True)
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
auto_scale_lr = dict(enable=False, base_batch_size=64)
visualizer = dict(name='brightness')
"""


def _write_data(root):
    """Write two photos, dark on the left and bright on the right."""
    annotations = []
    for index in (1, 2):
        image = np.full((20, 30, 3), 250, np.uint8)
        image[:, :10 * index] = 10
        mmcv.imwrite(image, str(root / 'images' / f'photo{index}.png'))
        write_segment_ids(root / 'panoptic' / f'photo{index}.png', np.where(image[..., 0] > 128, 70000, 9))
        segments = [dict(id=9, category_id=5, iscrowd=0), dict(id=70000, category_id=3, iscrowd=0)]
        annotations.append(dict(image_id=index, file_name=f'photo{index}.png', segments_info=segments))
    images = [dict(id=i, file_name=f'photo{i}.png', height=20, width=30) for i in (1, 2)]
    categories = [dict(id=5, name='cat', isthing=1), dict(id=3, name='sky', isthing=0)]
    (root / 'panoptic.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories)))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('brightness')
    _write_data(root)
    (root / 'brightness_detector.py').write_text(MODEL)
    (root / 'tiny.py').write_text(CONFIG.format(repository=REPOSITORY, root=root))
    sys.path.insert(0, str(root))
    yield root
    sys.path.remove(str(root))


@pytest.fixture(scope='module')
def trained(root):
    """Work dir of a run of two iterations that was resumed for two more."""
    config, work_dir = str(root / 'tiny.py'), str(root / 'work')
    _run('tools/train.py', config, '--work-dir', work_dir, '--cfg-options', 'train_cfg.max_iters=2')
    assert torch.load(f'{work_dir}/iter_2.pth', weights_only=True)['meta']['iter'] == 2
    _run('tools/train.py', config, '--work-dir', work_dir, '--resume')
    return Path(work_dir)


def _run(script, *arguments):
    argv, sys.argv = sys.argv, [script, *map(str, arguments)]
    try:
        runpy.run_path(str(REPOSITORY / script), run_name='__main__')
    finally:
        sys.argv = argv


def _build_config(script, *arguments):
    argv, sys.argv = sys.argv, [script, *map(str, arguments)]
    try:
        tool = runpy.run_path(str(REPOSITORY / script))
        return tool['build_config'](tool['parse_args']())
    finally:
        sys.argv = argv


def _scalars(work_dir):
    """All lines of all logs of a work dir, in the order of the runs."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


def test_train__resumes_from_the_last_iteration(trained):
    lines = _scalars(trained)
    assert [line['iter'] for line in lines if 'loss' in line] == [1, 2, 3, 4]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert losses == sorted(losses, reverse=True)
    assert [line['coco_panoptic/PQ'] for line in lines if 'coco_panoptic/PQ' in line] == [100., 100.]
    assert (trained / 'iter_4.pth').is_file() and list(trained.glob('best_coco_panoptic_PQ_iter_*.pth'))


def test_test__metrics_and_pictures(root, trained):
    _run('tools/test.py', root / 'tiny.py', trained / 'iter_4.pth', '--work-dir', root / 'tested', '--out',
         root / 'tested' / 'metrics.json', '--show-dir', 'shown')
    metrics = json.loads((root / 'tested' / 'metrics.json').read_text())
    assert metrics['coco_panoptic/PQ'] == metrics['coco_panoptic/PQ/cat'] == 100.
    pictures = sorted((root / 'tested').glob('*/shown/*.png'))
    assert [picture.name for picture in pictures] == ['photo1.png', 'photo2.png']
    picture = mmcv.imread(str(pictures[0]))
    assert picture.shape[1] == 3 * 390 + 2 * 4  # input, ground truth, prediction, enlarged
    # Nothing differs but the labels, because the prediction has scores.
    assert (picture[-260:, 394:784] == picture[-260:, 788:]).all(-1).mean() > 0.85


def test_test__submission(root, trained):
    prefix = root / 'submission' / 'test'
    _run('tools/test.py', root / 'tiny.py', trained / 'iter_4.pth', '--work-dir', root / 'tested',
         '--cfg-options', f'test_evaluator.outfile_prefix={prefix}',
         f'test_evaluator.ann_file={root / "panoptic.json"}', 'test_evaluator.format_only=True')
    annotations = json.loads(Path(f'{prefix}.json').read_text())['annotations']
    assert [[segment['category_id'] for segment in a['segments_info']] for a in annotations] == [[3, 5],
                                                                                                 [3, 5]]
    assert read_segment_ids(f'{prefix}/photo2.png')[0, [0, 19, 20]].tolist() == [2, 2, 1]


def test_image_demo__folder(root, trained, capsys):
    out = root / 'demo'
    _run('demo/image_demo.py', root / 'images', root / 'tiny.py', trained / 'iter_4.pth', '--out-dir', out,
         '--device', 'cpu')
    assert sorted(file.name for file in out.iterdir()) == [
        f'photo{i}{suffix}' for i in (1, 2) for suffix in ('.json', '_overlay.png', '_panoptic.png')
    ]
    result = json.loads((out / 'photo1.json').read_text())
    assert (result['height'], result['width'], result['panoptic_png']) == (20, 30, 'photo1_panoptic.png')
    assert result['segments_info'] == [
        dict(id=1, label=1, class_name='sky', is_thing=False, score=0.4, area=400, bbox=[10, 0, 20, 20]),
        dict(id=2, label=0, class_name='cat', is_thing=True, score=0.9, area=200, bbox=[0, 0, 10, 20]),
    ]
    assert read_segment_ids(str(out / 'photo1_panoptic.png'))[0, [0, 29]].tolist() == [2, 1]
    assert mmcv.imread(str(out / 'photo1_overlay.png')).shape == (260, 390, 3)  # enlarged
    assert '2/2' in capsys.readouterr().out  # progress


def test_image_demo__score_and_bad_input(root, trained):
    checkpoint, config = trained / 'iter_4.pth', root / 'tiny.py'
    _run('demo/image_demo.py', root / 'images' / 'photo1.png', config, checkpoint, '--out-dir', root / 'sure',
         '--pred-score-thr', '0.5', '--device', 'cpu')
    result = json.loads((root / 'sure' / 'photo1.json').read_text())
    assert [segment['class_name'] for segment in result['segments_info']] == ['cat']
    for arguments, missing in ((('none.png', config, checkpoint), 'none.png'), ((root / 'images', 'none.py',
                                                                                 checkpoint), 'none.py'),
                               ((root / 'images', config, 'none.pth'), 'none.pth')):
        with pytest.raises(FileNotFoundError, match=missing):
            _run('demo/image_demo.py', *arguments)


def test_image_demo__bad_file_among_images(root, trained, tmp_path):
    images, out = tmp_path / 'images', tmp_path / 'out'
    shutil.copytree(root / 'images', images)
    (images / 'photo0.png').write_bytes((images / 'photo1.png').read_bytes()[:60])
    with pytest.raises(SystemExit, match='1 failed:\n  .*photo0.png: .*\n.* the other 2 images to') as stop:
        _run('demo/image_demo.py', images, root / 'tiny.py', trained / 'iter_4.pth', '--out-dir', out,
             '--device', 'cpu')
    assert isinstance(stop.value.code, str)  # which Python prints, with exit code 1
    assert sorted(file.name for file in out.glob('*.json')) == ['photo1.json', 'photo2.json']


@pytest.mark.parametrize('split', ['train', 'val'])
def test_browse_dataset__pictures(root, split):
    out = root / f'browsed_{split}'
    _run('tools/analysis_tools/browse_dataset.py', root / 'tiny.py', '--split', split, '--not-show',
         '--output-dir', out)
    assert sorted(file.name for file in out.iterdir()) == ['000000_photo1.png', '000001_photo2.png']
    assert mmcv.imread(str(out / '000000_photo1.png')).shape[1] == 784  # input, ground truth


def test_train__weights_that_cannot_be_downloaded(root):
    """Without a network: nothing listens at port 9."""
    with pytest.raises(SystemExit) as caught:
        _run('tools/train.py', root / 'tiny.py', '--work-dir', root / 'offline', '--cfg-options',
             'load_from=http://127.0.0.1:9/folder/weights.pth?token=1')
    message, = str(caught.value).splitlines()
    assert message.startswith(
        'error: Cannot download the weights http://127.0.0.1:9/folder/weights.pth?token=1 (')
    assert 'Connection refused' in message and 'init_cfg=None' in message
    assert f'copy them to {torch.hub.get_dir()}/checkpoints/weights.pth, or' in message


def test_train_config__arguments(root):
    config = str(root / 'tiny.py')
    cfg = _build_config('tools/train.py', config)
    assert (cfg.work_dir, cfg.launcher, cfg.resume, cfg.load_from) == ('work_dirs/tiny', 'none', False, None)
    assert cfg.optim_wrapper.type == 'OptimWrapper' and not cfg.auto_scale_lr.enable

    cfg = _build_config('tools/train.py', config, '--amp', '--auto-scale-lr', '--resume', '--work-dir', 'x',
                        '--cfg-options', 'optim_wrapper.accumulative_counts=4', 'train_cfg.max_iters=7')
    assert cfg.optim_wrapper == dict(
        type='AmpOptimWrapper',
        optimizer=dict(type='SGD', lr=0.1),
        accumulative_counts=4,
        loss_scale='dynamic')
    assert cfg.auto_scale_lr.enable and cfg.resume and cfg.load_from is None
    assert cfg.work_dir == 'x' and cfg.train_cfg.max_iters == 7

    cfg = _build_config('tools/train.py', config, '--amp', '--amp-dtype', 'bfloat16', '--cfg-options',
                        'optim_wrapper.loss_scale=512.', '--resume', config)
    assert cfg.optim_wrapper.dtype == 'bfloat16' and cfg.optim_wrapper.loss_scale == 512
    assert cfg.load_from == config


@pytest.mark.parametrize('arguments, error, message', [
    (['none.py'], FileNotFoundError, 'none.py'),
    (['CONFIG', '--resume', 'none.pth'], FileNotFoundError, 'none.pth'),
    (['CONFIG', '--amp-dtype', 'float16'], ValueError, '--amp'),
    (['CONFIG', '--amp', '--cfg-options', 'optim_wrapper.type=Other'], ValueError, 'Other'),
    (['CONFIG', '--auto-scale-lr', '--cfg-options', 'auto_scale_lr={}'], ValueError, 'base_batch_size'),
])
def test_train_config__bad_input(root, arguments, error, message):
    with pytest.raises(error, match=message):
        _build_config('tools/train.py', *(str(root / 'tiny.py') if a == 'CONFIG' else a for a in arguments))


def test_test_config__arguments(root, tmp_path):
    config, checkpoint = str(root / 'tiny.py'), tmp_path / 'a.pth'
    checkpoint.touch()
    cfg = _build_config('tools/test.py', config, checkpoint, '--show', '--wait-time', '3')
    assert cfg.load_from == str(checkpoint)
    assert cfg.default_hooks.visualization == dict(
        type='DetVisualizationHook', backend_args=None, draw=True, show=True, wait_time=3.)
    with pytest.raises(FileNotFoundError, match='none.pth'):
        _build_config('tools/test.py', config, 'none.pth')
    with pytest.raises(ValueError, match='JSON'):
        _build_config('tools/test.py', config, checkpoint, '--out', 'x.pkl')
