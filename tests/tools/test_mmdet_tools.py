"""MMDetection's tools on panoptic configs, as docs/mmdet_tools.md lists them."""
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from mmengine.fileio import dump, load

from remax_mm import tool
from remax_mm.apis.host_tool_adapters import ADAPTERS, HINTS, keep_loading_steps
from remax_mm.apis.host_tools import find_tool, list_tools
from remax_mm.datasets import LoadImageStrict, write_mini_panoptic
from tests.conftest import REPOSITORY
from tests.oracle_detector import OracleDetector

PAGE = (REPOSITORY / 'docs' / 'mmdet_tools.md').read_text(encoding='utf-8')
ANALYSIS = 'mmdet/analysis_tools'

TRAIN = """
_base_ = 'remax_mm::mini/remax_mnv3-s_1xb8-1k_mini-129.py'
loader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}'))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(logger=dict(interval=1))
visualizer = dict(name='mmdet_tools')
"""

# Predicts the annotation, moved by two pixels.
ORACLE = """
_base_ = './train.py'
custom_imports = dict(imports=['remax_mm', 'tests.oracle_detector'])
model = dict(_delete_=True, type='OracleDetector', num_things=7, num_classes=12, shift=2)
test_evaluator = dict(type='PanopticQualityMetric')
val_evaluator = test_evaluator
"""


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a tool in this process; returns what it prints."""

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', [])
        monkeypatch.setattr(sys, 'path', list(sys.path))
        tool.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return call


# ---- the launcher


def test_list_tools__of_both_packages():
    tools = list_tools()
    assert {'mmdet/train.py', 'mmdet/analysis_tools/get_flops.py', 'remax_mm/test.py'} <= set(tools)
    assert all(find_tool(name).is_file() for name in tools)
    assert find_tool('remax_mm/train.py').samefile(REPOSITORY / 'tools' / 'train.py')
    assert {*ADAPTERS, *HINTS} <= set(tools)


def test_tool__lists_the_tools_without_arguments(run):
    assert run().split()[-len(list_tools()):] == list_tools() == run('--help').split()[-len(list_tools()):]


@pytest.mark.parametrize('name, nearest', [
    ('get_flops.py', 'mmdet/analysis_tools/get_flops.py or remax_mm/analysis_tools/get_flops.py'),
    ('mmdet/analysis_tool/get_flops.py', 'mmdet/analysis_tools/get_flops.py'),
    ('mmdet/../train.py', 'python -m remax_mm.tool|mmdet/train.py'),
])
def test_tool__unknown_name(run, name, nearest):
    with pytest.raises(SystemExit, match=f'Expected the name of a tool, but got {name}.*({nearest})'):
        run(name)


def test_tool__missing_file_of_the_tool_is_not_a_missing_tool(run, tmp_path):
    with pytest.raises(FileNotFoundError, match='none.py'):
        run('mmdet/misc/print_config.py', tmp_path / 'none.py')


def test_tool__print_config(run):
    printed = run('mmdet/misc/print_config.py', REPOSITORY / 'configs/mini/kmax_mnv3-s_1xb8-1k_mini-129.py')
    printed = ''.join(printed.split())  # the layout depends on what yapf did before in this process
    assert "type='MaskTransformer'" in printed and "tta_model=dict(type='PanopticTTAModel'" in printed


def test_tool__a_failure_says_what_the_tool_needs(run, capsys):
    with pytest.raises(SystemExit, match=r'fuse_results.py: It fuses boxes.*`models_name`'):
        run(f'{ANALYSIS}/fuse_results.py', 'a.json', 'b.json', '--annotation', 'c.json')
    assert 'Traceback' in capsys.readouterr().err


def test_keep_loading_steps__names_and_classes():
    names = ('LoadImageStrict', 'mmdet.LoadPanopticMap', 'Resize', 'PackPanopticInputs')
    steps = [*(dict(type=name) for name in names), dict(type=LoadImageStrict)]
    assert keep_loading_steps(steps) == [steps[0], steps[1], steps[-1]]


def test_page__lists_the_tools_that_are_tested():
    listed = re.findall(r'^\| `(mmdet/\S+\.py)`', PAGE, re.MULTILINE)
    assert len(listed) == len(set(listed)) == 13 and set(listed) <= set(list_tools())
    source = Path(__file__).read_text(encoding='utf-8')
    assert not [name for name in listed if f"/{name.split('/')[-1]}'" not in source]


# ---- the tools


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """The mini dataset, configs, the work directory of a training, and predictions of an oracle."""
    root = tmp_path_factory.mktemp('mmdet_tools')
    write_mini_panoptic(root / 'data', 4, 4, 65, 0)
    (root / 'train.py').write_text(TRAIN.format(data=root / 'data'))
    (root / 'oracle.py').write_text(ORACLE)
    torch.save(dict(state_dict=OracleDetector(7, 12).state_dict()), root / 'oracle.pth')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [])
        patch.setattr(sys, 'path', list(sys.path))
        tool.main(['mmdet/train.py', str(root / 'train.py'), '--work-dir', str(root / 'train')])
        tool.main([
            'mmdet/test.py',
            str(root / 'oracle.py'),
            str(root / 'oracle.pth'), '--out',
            str(root / 'predictions.pkl'), '--work-dir',
            str(root / 'test'), '--show-dir', 'shown', '--cfg-options', 'model.test_cfg.instance_on=True'
        ])
    return root


def _metrics(root):
    """Metrics that mmdet's test script logged."""
    log, = (root / 'test').glob('*/*.json')
    return json.loads(log.read_text())


@pytest.mark.slow
def test_train_and_test__checkpoint_metrics_and_pictures(root):
    assert (root / 'train' / 'iter_3.pth').is_file()
    metrics = _metrics(root)
    assert 50 < metrics['coco_panoptic/PQ'] < 100  # moved by two pixels, nearly all segments match
    shown = sorted(path.name for path in (root / 'test').glob('*/shown/*'))
    assert len(shown) == len(list((root / 'data' / 'images' / 'val').iterdir())) == 4


@pytest.mark.slow
def test_test__test_time_augmentation(run, root, tmp_path):
    run('mmdet/test.py', root / 'train.py', root / 'train' / 'iter_3.pth', '--tta', '--work-dir', tmp_path)
    log, = tmp_path.glob('*/*.json')
    assert 'coco_panoptic/PQ' in json.loads(log.read_text())


@pytest.mark.slow
def test_eval_metric__the_metrics_of_the_test(run, root):
    printed = run(f'{ANALYSIS}/eval_metric.py', root / 'oracle.py', root / 'predictions.pkl')
    values = dict(re.findall(r"'(coco_panoptic/\w+)': ([\d.]+)", printed))
    expected = {key: value for key, value in _metrics(root).items() if key.startswith('coco_panoptic')}
    assert {key: float(value) for key, value in values.items()} == pytest.approx(expected)


@pytest.mark.slow
def test_analyze_results__best_and_worst_images(run, root, tmp_path):
    run(f'{ANALYSIS}/analyze_results.py', root / 'oracle.py', root / 'predictions.pkl', tmp_path, '--topk', 2)
    qualities = {}
    for folder in ('good', 'bad'):
        pictures = sorted((tmp_path / folder).iterdir())
        assert [mmcv.imread(str(path)).shape[1] > 3 * 65 for path in pictures] == [True, True]
        qualities[folder] = [float(path.stem.split('_')[-1]) for path in pictures]
    assert max(qualities['bad']) <= min(qualities['good'])
    names = [path.stem.split('_')[0] for folder in ('good', 'bad') for path in (tmp_path / folder).iterdir()]
    assert sorted(names) == sorted(path.stem for path in (root / 'data' / 'images' / 'val').iterdir())


@pytest.mark.slow
def test_browse_dataset__annotated_segments(run, root, tmp_path):
    run(f'{ANALYSIS}/browse_dataset.py', root / 'train.py', '--output-dir', tmp_path, '--not-show')
    pictures = [mmcv.imread(str(path)) for path in tmp_path.iterdir()]
    assert len(pictures) == 4
    assert all(picture.shape[1] >= 2 * 129 for picture in pictures)  # input and ground truth


@pytest.mark.slow
def test_confusion_matrix__boxes_of_things(run, root, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, 'imshow', _record(drawn, Axes.imshow))
    run(f'{ANALYSIS}/confusion_matrix.py', root / 'oracle.py', root / 'predictions.pkl', tmp_path,
        '--score-thr', 0)
    assert (tmp_path / 'confusion_matrix.png').is_file()
    things = {
        segment['category_id']
        for annotation in load(str(root / 'data/annotations/panoptic_val.json'))['annotations']
        for segment in annotation['segments_info']
    }
    rows = drawn[0][:7][~np.isnan(drawn[0][:7, 0])]
    assert len(rows) == len(things & {1, 3, 4, 8, 11, 17, 18})
    # Boxes of things that are moved by two pixels match, except for tiny ones.
    assert np.allclose(
        rows.sum(1), 100, atol=40) and (rows.argmax(1) == np.flatnonzero(~np.isnan(drawn[0][:7, 0]))).all()
    assert np.isnan(drawn[0][7:12]).all()  # stuff has no boxes


def _record(drawn, host):

    def imshow(self, image, *args, **kwargs):
        drawn.append(np.array(image))
        return host(self, image, *args, **kwargs)

    return imshow


@pytest.mark.slow
def test_confusion_matrix__predictions_without_boxes(run, root, tmp_path):
    predictions = load(str(root / 'predictions.pkl'))
    dump([{
        key: value
        for key, value in result.items() if key != 'pred_instances'
    } for result in predictions], str(tmp_path / 'panoptic.pkl'))
    with pytest.raises(SystemExit, match='model.test_cfg.instance_on=True'):
        run(f'{ANALYSIS}/confusion_matrix.py', root / 'oracle.py', tmp_path / 'panoptic.pkl', tmp_path)


@pytest.mark.slow
def test_coco_error_analysis__exported_instances(run, root, tmp_path):
    run('mmdet/test.py', root / 'oracle.py', root / 'oracle.pth', '--work-dir', tmp_path, '--cfg-options',
        'model.test_cfg.instance_on=True', 'test_evaluator.type=PanopticInstanceAPMetric',
        f'test_evaluator.outfile_prefix={tmp_path}/things')
    run(f'{ANALYSIS}/coco_error_analysis.py', tmp_path / 'things.segm.json', tmp_path / 'out', '--ann',
        tmp_path / 'things.gt.json', '--types', 'segm')
    pictures = {path.name for path in (tmp_path / 'out' / 'segm').iterdir()}
    assert {f'segm-{name}-{area}.png'
            for name in ('allclass', 'disc')
            for area in ('allarea', 'small')} <= pictures


@pytest.mark.slow
def test_analyze_logs__losses_and_times_but_no_metrics(run, root, tmp_path):
    script = f'{ANALYSIS}/analyze_logs.py'
    needs_seaborn = 'seaborn' in find_tool(script).read_text()
    if needs_seaborn and find_spec('seaborn') is None:
        pytest.skip('seaborn is not installed')
    log, = (root / 'train').glob('*/vis_data/2*.json')
    # The forks take a style of matplotlib, but have seaborn's default.
    style = [] if needs_seaborn else ['--style', 'dark_background']
    run(script, 'plot_curve', log, '--keys', 'loss_cls', 'loss', '--out', tmp_path / 'losses.png', *style)
    assert mmcv.imread(str(tmp_path / 'losses.png')) is not None
    times = [line['time'] for line in map(json.loads, log.read_text().splitlines()) if 'loss' in line]
    assert f'average iter time: {np.mean(times[1:]):.4f}' in run(script, 'cal_train_time', log)
    with pytest.raises(SystemExit, match='no metrics of the validation'):
        run(script, 'plot_curve', log, '--keys', 'PQ', '--out', tmp_path / 'pq.png', *style)


@pytest.mark.slow
def test_get_flops__parameters_at_inference(run, root):
    printed = run(f'{ANALYSIS}/get_flops.py', root / 'train.py', '--num-images', 1)
    assert re.search(r'Flops: \d\.\d+G', printed) and 'Input shape: (129, 129)' in printed


@pytest.mark.slow
def test_benchmark__data_and_inference(run, root):
    if find_spec('psutil') is None:
        pytest.skip('psutil is not installed')
    options = ['--max-iter', 3, '--num-warmup', 1, '--log-interval', 1]
    for task in ('dataloader', 'dataset'):
        run(f'{ANALYSIS}/benchmark.py', root / 'train.py', '--task', task, *options)
    inference = ['--task', 'inference', '--checkpoint', root / 'train' / 'iter_3.pth']
    if torch.cuda.is_available():
        run(f'{ANALYSIS}/benchmark.py', root / 'train.py', *inference, *options)
    else:
        with pytest.raises(SystemExit, match='--task inference needs a GPU'):
            run(f'{ANALYSIS}/benchmark.py', root / 'train.py', *inference, *options)


@pytest.mark.slow
def test_publish_model__weights_with_their_hash(run, root, tmp_path):
    run('mmdet/model_converters/publish_model.py', root / 'train' / 'iter_3.pth', tmp_path / 'remax.pth')
    end = time.monotonic() + 30  # mmdet does not wait for the command that renames the file
    while not list(tmp_path.glob('remax-*.pth')) and time.monotonic() < end:
        time.sleep(0.05)
    published, = tmp_path.glob('remax-*.pth')
    assert hashlib.sha256(published.read_bytes()).hexdigest()[:8] in published.name
    checkpoint = torch.load(published, weights_only=True)
    assert set(checkpoint) == {'meta', 'state_dict'} and len(
        checkpoint['meta']['dataset_meta']['classes']) == 12


@pytest.mark.slow
def test_tool__in_a_new_process(root, tmp_path):
    # Nothing has imported remax_mm there, so a missing preparation would show.
    command = [
        sys.executable, '-m', 'remax_mm.tool', 'mmdet/test.py', root / 'train.py',
        root / 'train' / 'iter_3.pth', '--work-dir', tmp_path
    ]
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY))
    done = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'coco_panoptic/PQ' in done.stdout + done.stderr
