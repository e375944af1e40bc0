"""The same images and ground truth from a folder, from lmdb, over HTTP, and from a registered backend."""
import http.server
import threading
from functools import partial
from pathlib import Path

import lmdb
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config
from mmengine.fileio import BaseStorageBackend, register_backend
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import PixelData

from remax_mm.apis.evaluation_config import use_tta
from remax_mm.apis.run_config import load_config
from remax_mm.datasets import write_mini_panoptic
from remax_mm.panoptic_format import read_file
from tests.config_files import OWN, PATHS, read_config
from tests.conftest import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'mini' / 'kmax_mnv3-s_1xb8-1k_mini-129.py'
READERS = ('LoadImageFromFile', 'LoadImageStrict', 'LoadPanopticMap', 'LoadSegmentIds',
           'PanopticQualityMetric', 'DetVisualizationHook')


class BucketBackend(BaseStorageBackend):
    """Like the client of an object store, with paths `bucket://<name of the bucket>/<key>`."""

    def __init__(self, folder):
        self.folder, self.gets = Path(folder), []

    def get(self, filepath):
        self.gets.append(filepath)
        return (self.folder / filepath.split('://bucket/')[1]).read_bytes()

    def get_text(self, filepath, encoding='utf-8'):
        return self.get(filepath).decode(encoding)

    def join_path(self, filepath, *filepaths):
        return '/'.join([filepath.rstrip('/'), *filepaths])


@pytest.fixture(scope='module', autouse=True)
def _bucket():
    register_backend('test_bucket', BucketBackend, force=True)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('storage') / 'mini'
    write_mini_panoptic(folder, 3, 2, 65, 0)
    return folder


@pytest.fixture(scope='module')
def database(folder):
    """The files by their path below the folder."""
    path = folder.parent / 'mini.lmdb'
    with lmdb.open(str(path), map_size=2**26) as environment, environment.begin(write=True) as transaction:
        for file in filter(Path.is_file, folder.rglob('*')):
            transaction.put(str(file.relative_to(folder)).encode(), file.read_bytes())
    return path


@pytest.fixture(scope='module')
def server(folder):
    """Address of a server that runs in a thread."""
    handler = partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{running.server_port}'
        running.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):

    def log_message(self, *_):
        pass


@pytest.fixture(params=['lmdb', 'http', pytest.param('bucket', marks=pytest.mark.slow)])
def storage(request, folder):
    """`data_root` and `backend_args`."""
    if request.param == 'lmdb':
        return '', dict(backend='lmdb', db_path=str(request.getfixturevalue('database')))
    if request.param == 'http':
        return request.getfixturevalue('server'), dict(backend='http')
    return 'bucket://bucket', dict(backend='test_bucket', folder=str(folder))


def _config(data_root, backend_args):
    """The mini config, tested with all tasks and without augmentation."""
    config = Config.fromfile(CONFIG)
    steps = config.train_dataloader.dataset.pipeline
    config.train_dataloader.dataset.pipeline = [step for step in steps if 'Random' not in step.type]
    for split in ('train', 'val', 'test'):
        config[f'{split}_dataloader'].dataset.data_root = data_root
    return load_config(config, backend_args and {'backend_args': dict(backend_args, _delete_=True)})


def _samples(dataset):
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(dataset)
        return [dataset[index] for index in range(len(dataset))]


def _assert_same(found, expected):
    """Of a sample, or of the views of one."""
    assert len(found) == len(expected) > 0
    for ours, other in zip(found, expected):
        images = [packed['inputs'] for packed in (ours, other)]
        images = [image if isinstance(image, list) else [image] for image in images]
        assert all(torch.equal(*pair) for pair in zip(*images))
        samples = [packed['data_samples'] for packed in (ours, other)]
        samples = [sample if isinstance(sample, list) else [sample] for sample in samples]
        for one, two in zip(*samples):
            assert one.keys() == two.keys()
            if 'gt_annotation' in one:
                assert torch.equal(one.gt_annotation.ids, two.gt_annotation.ids)
                assert one.gt_annotation.segments == two.gt_annotation.segments
            else:
                assert torch.equal(one.gt_panoptic_seg.segment_map, two.gt_panoptic_seg.segment_map)


def test_datasets__of_training_test_and_views(storage, folder):
    local, remote = _config(str(folder), None), _config(*storage)
    for split in ('train', 'test'):
        _assert_same(*(_samples(config[f'{split}_dataloader'].dataset) for config in (remote, local)))
    _assert_same(*(_samples(use_tta(config).test_dataloader.dataset) for config in (remote, local)))


def test_data_loader__worker_process(storage, folder):
    """The worker is forked after the main process has read the annotation file."""
    batches = []
    with DefaultScope.overwrite_default_scope('mmdet'):
        for config in (_config(*storage), _config(str(folder), None)):
            loader = dict(config.val_dataloader, num_workers=1, persistent_workers=False, batch_size=1)
            batches.append([
                dict(inputs=b['inputs'][0], data_samples=b['data_samples'][0])
                for b in Runner.build_dataloader(loader)
            ])
    _assert_same(*batches)


@pytest.mark.parametrize('metric', ['PanopticQualityMetric', 'PanopticSemanticIoUMetric'])
def test_metrics__read_the_pngs_themselves(metric, storage):
    """Pipelines without `LoadSegmentIds`, as mmdet's, leave the annotation to the metric."""
    config = _config(*storage)
    dataset = config.test_dataloader.dataset
    dataset.pipeline = [step for step in dataset.pipeline if step.type != 'LoadSegmentIds']
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = DATASETS.build(dataset)
        evaluator = METRICS.build(dict(type=metric, backend_args=storage[1]))
    evaluator.dataset_meta = built.metainfo
    void = torch.full((1, 65, 65), len(built.metainfo['classes']))
    for index in range(len(built)):
        sample = built[index]['data_samples']
        sample.pred_panoptic_seg, sample.pred_sem_seg = PixelData(sem_seg=void), PixelData(sem_seg=void * 0)
        evaluator.process({}, [sample.to_dict()])
    metrics = evaluator.evaluate(len(built))
    assert metrics['coco_panoptic/PQ' if 'Quality' in metric else 'semantic/mIoU'] < 50


@pytest.mark.parametrize('storage', ['lmdb', 'http'], indirect=True)
def test_read_file__missing(storage):
    root, backend_args = storage
    with pytest.raises(FileNotFoundError, match='Expected a photo at .*missing.jpg, but there is no such'):
        read_file(f'{root}/missing.jpg', 'a photo', backend_args)


def test_read_file__storage_that_does_not_answer():
    with pytest.raises(OSError, match='Cannot read a photo at http://127.0.0.1:9/a.jpg'):
        read_file('http://127.0.0.1:9/a.jpg', 'a photo', dict(backend='http'))


def _readers(value):
    if isinstance(value, dict):
        if value.get('type') in READERS or 'ann_file' in value:
            yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _readers(item)


@pytest.mark.parametrize('name', [*OWN, 'mask2former_r50_8xb2-lsj-50e_coco-panoptic',
                                  'maskformer_r50_ms-16xb1-75e_coco'])  # yapf: disable
def test_configs__one_key_reaches_every_reader(name):
    shared = dict(backend='lmdb', db_path='data/coco.lmdb')
    config = load_config(read_config(name), {'backend_args': dict(shared, _delete_=True)})
    keys = [f'{split}_{part}' for split in ('train', 'val', 'test') for part in ('dataloader', 'evaluator')]
    keys += ['tta_pipeline', 'default_hooks']
    missing = [
        reader for key in keys for reader in _readers(config.get(key)) if reader.get('backend_args') != shared
    ]
    assert PATHS[name].is_file() and not missing
