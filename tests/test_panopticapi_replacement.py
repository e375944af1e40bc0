"""The replacement of panopticapi, by hand and against the official package where that is installed."""
import contextlib
import io
import sys
from importlib import import_module

import numpy as np
import pytest
from mmdet.apis import det_inferencer
from mmdet.evaluation.functional import panoptic_utils
from mmdet.evaluation.metrics import coco_panoptic_metric
from mmdet.registry import METRICS
from mmengine.registry import DefaultScope

from remax_mm import panopticapi_replacement as replacement
from remax_mm.benchmarks.metric_speed import evaluate
from remax_mm.benchmarks.random_scenes import META, write_annotations, write_scene
from remax_mm.panopticapi_replacement import IdGenerator, PQStat, id2rgb, replace_missing_panopticapi, rgb2id

IS_MISSING = replace_missing_panopticapi()
needs_panopticapi = pytest.mark.skipif(IS_MISSING, reason='panopticapi is not installed')

CATEGORIES = {
    1: dict(isthing=1, color=[10, 0, 250]),
    2: dict(isthing=0, color=[200, 100, 0]),
    7: dict(isthing=1, color=[0, 0, 0]),
}


@pytest.fixture
def mmdet_modules(monkeypatch):
    """The modules of mmdet that use panopticapi; what a test replaces in them is restored."""
    modules = (panoptic_utils, coco_panoptic_metric, det_inferencer)
    for module in modules:
        for name in ('panopticapi', 'VOID', 'OFFSET', 'PQStat', 'rgb2id', 'id2rgb'):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(module, name))
    return modules


def _statistics(**sums):
    statistics = PQStat()
    for name, values in sums.items():
        for cat_id, value in zip(CATEGORIES, values):
            setattr(statistics[cat_id], name, value)
    return statistics


@pytest.mark.skipif(not IS_MISSING, reason='panopticapi is installed')
def test_replace__modules_that_were_imported_before(mmdet_modules):
    for module in mmdet_modules:
        for name in ('VOID', 'PQStat', 'id2rgb'):
            if hasattr(module, name):
                setattr(module, name, None)
    coco_panoptic_metric.panopticapi = None
    assert replace_missing_panopticapi()
    assert coco_panoptic_metric.panopticapi is not None and coco_panoptic_metric.PQStat is PQStat
    assert panoptic_utils.PQStat is PQStat and det_inferencer.VOID == 0 and det_inferencer.id2rgb is id2rgb
    assert not hasattr(det_inferencer, 'PQStat')


def test_replace__keeps_an_installed_package(mmdet_modules, monkeypatch, tmp_path):
    package = tmp_path / 'panopticapi'
    package.mkdir()
    (package / '__init__.py').write_text('official = True')
    for name in ('panopticapi', 'panopticapi.utils', 'panopticapi.evaluation'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert not replace_missing_panopticapi()
    assert import_module('panopticapi').official
    monkeypatch.delitem(sys.modules, 'panopticapi')


@pytest.mark.skipif(not IS_MISSING, reason='panopticapi is installed')
def test_replace__other_names_are_an_import_error():
    with pytest.raises(ImportError, match=r'pq_compute.*panopticapi_replacement'):
        exec('from panopticapi.evaluation import pq_compute')


def test_rgb2id__by_hand():
    rgb = np.array([[[1, 2, 3], [255, 255, 255]]], np.uint8)
    assert rgb2id(rgb).tolist() == [[1 + 2 * 256 + 3 * 65536, 2**24 - 1]]
    assert rgb2id([1, 2, 3]) == 1 + 2 * 256 + 3 * 65536
    assert np.array_equal(id2rgb(rgb2id(rgb)), rgb) and id2rgb(rgb2id(rgb)).dtype == np.uint8
    assert id2rgb(1 + 2 * 256 + 3 * 65536) == [1, 2, 3]


def test_pq_average__by_hand():
    statistics = _statistics(iou=(1.5, 0.75, 0.), tp=(2, 1, 0), fp=(1, 0, 0), fn=(1, 2, 0))
    means, classes = statistics.pq_average(CATEGORIES, isthing=None)
    assert classes == {
        1: dict(pq=1.5 / 3, sq=0.75, rq=2 / 3),
        2: dict(pq=0.75 / 2, sq=0.75, rq=0.5),
        7: dict(pq=0., sq=0., rq=0.)
    }
    assert means == pytest.approx(dict(pq=(0.5 + 0.375) / 2, sq=0.75, rq=(2 / 3 + 0.5) / 2, n=2))
    assert statistics.pq_average(CATEGORIES, isthing=True)[0] == dict(pq=0.5, sq=0.75, rq=2 / 3, n=1)

    statistics += _statistics(iou=(0., 0.75, 0.), tp=(0, 1, 0), fp=(0, 0, 3), fn=(0, 0, 0))
    means, classes = statistics.pq_average(CATEGORIES, isthing=None)
    assert means['n'] == 3 and classes[2] == dict(
        pq=0.5, sq=0.75, rq=2 / 3) and classes[7] == dict(
            pq=0., sq=0., rq=0.)


def test_pq_average__group_without_classes():
    means, classes = PQStat().pq_average(CATEGORIES, isthing=False)
    assert means['n'] == 0 and np.isnan([means['pq'], means['sq'], means['rq']]).all()
    assert classes == {2: dict(pq=0., sq=0., rq=0.)}


def test_id_generator__unique_ids_near_the_color():
    generator = IdGenerator(CATEGORIES)
    drawn = [generator.get_id_and_color(1) for _ in range(200)]
    ids, colors = [i for i, _ in drawn], np.array([color for _, color in drawn])
    assert len(set(ids)) == 200 and ids == [rgb2id(color) for color in colors]
    assert colors[0].tolist() == [10, 0, 250] and abs(colors - colors[0]).max() == 30
    assert generator.get_id(2) == generator.get_id(2) == 200 + 100 * 256
    assert 0 not in [generator.get_id(7) for _ in range(20)]


@needs_panopticapi
def test_replacement__equals_panopticapi():
    evaluation, utils = import_module('panopticapi.evaluation'), import_module('panopticapi.utils')
    assert (evaluation.VOID, evaluation.OFFSET) == (replacement.VOID, replacement.OFFSET)
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert np.array_equal(rgb2id(rgb), utils.rgb2id(rgb)) and rgb2id([9, 8, 7]) == utils.rgb2id([9, 8, 7])
    assert np.array_equal(id2rgb(rgb2id(rgb)), utils.id2rgb(utils.rgb2id(rgb)))
    assert id2rgb(2**23 + 5) == utils.id2rgb(2**23 + 5)

    ids = []
    for generator in (IdGenerator(CATEGORIES), utils.IdGenerator(CATEGORIES)):
        np.random.seed(0)
        ids.append([generator.get_id(cat_id) for cat_id in [1, 2] * 50])
    assert ids[0] == ids[1]

    ours, official = PQStat(), evaluation.PQStat()
    for _ in range(30):
        part, official_part = PQStat(), evaluation.PQStat()
        for cat_id in CATEGORIES:
            matched, *others = rng.integers([0, 1, 0], 4).tolist()
            sums = (matched * rng.random(), matched, *others)
            for row in (part[cat_id], official_part[cat_id]):
                row.iou, row.tp, row.fp, row.fn = sums
        ours += part
        official += official_part
        for isthing in (None, True, False):
            means, classes = ours.pq_average(CATEGORIES, isthing)
            expected = official.pq_average(CATEGORIES, isthing)
            assert means == pytest.approx(expected[0], rel=1e-12)
            assert all(classes[key] == pytest.approx(expected[1][key], rel=1e-12) for key in expected[1])


def _evaluate(name, samples, **options):
    with DefaultScope.overwrite_default_scope('mmdet'), contextlib.redirect_stdout(io.StringIO()):
        metric = METRICS.build(dict(type=name, **options))
        metric.dataset_meta = META
        return evaluate(metric, samples)[1]


@pytest.fixture
def scenes(tmp_path):
    """Drawn scenes with predictions, and options of mmdet's metric."""
    rng = np.random.default_rng(0)
    samples = [write_scene(rng, tmp_path, f'{number:06d}', (120, 160)) for number in range(4)]
    write_annotations(tmp_path / 'annotations.json', samples)
    return samples, dict(ann_file=str(tmp_path / 'annotations.json'), seg_prefix=str(tmp_path))


def test_coco_panoptic_metric__both_modes(scenes, tmp_path):
    samples, options = scenes
    expected = _evaluate('PanopticQualityMetric', samples)
    assert 10 < expected['coco_panoptic/PQ'] < 99
    # By image, and from exported files in several processes.
    for more in (dict(classwise=True), dict(outfile_prefix=str(tmp_path / 'out' / 'val'), nproc=2)):
        assert _evaluate('CocoPanopticMetric', samples, **options, **more) == pytest.approx(expected)


@needs_panopticapi
def test_coco_panoptic_metric__the_same_with_both(mmdet_modules, scenes):
    samples, options = scenes
    values = []
    official = dict(
        PQStat=import_module('panopticapi.evaluation').PQStat,
        rgb2id=import_module('panopticapi.utils').rgb2id,
        id2rgb=import_module('panopticapi.utils').id2rgb)
    for names in (official, dict(PQStat=PQStat, rgb2id=rgb2id, id2rgb=id2rgb)):
        for module in mmdet_modules:
            vars(module).update({name: value for name, value in names.items() if name in vars(module)})
        values.append(_evaluate('CocoPanopticMetric', samples, **options))
    assert values[0] == pytest.approx(values[1], rel=1e-12) and 10 < values[0]['coco_panoptic/PQ'] < 99
