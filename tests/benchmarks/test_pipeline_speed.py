"""The benchmark of the pipeline: what it draws and what it compares."""
import json

import cv2
import numpy as np
import pytest
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from remax_mm.benchmarks import pipeline_speed
from remax_mm.benchmarks.coco_like_images import draw_coco_like
from remax_mm.benchmarks.pipeline_speed import build_dataset, compare_pipelines, to_mmdet
from tests.conftest import REPOSITORY

CONFIG = REPOSITORY / 'configs' / '_base_' / 'datasets' / 'coco_panoptic_641.py'


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp('drawn')
    draw_coco_like(folder, 'drawn', 2, (10, 60))
    return folder


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def test_draw_coco_like__photos_and_segments(drawn):
    content = json.loads((drawn / 'annotations' / 'panoptic_drawn.json').read_text())
    things = {category['id'] for category in content['categories'] if category['isthing']}
    assert len(things) == 80 and len(content['categories']) == 133
    segments = [segment for annotation in content['annotations'] for segment in annotation['segments_info']]
    assert all(10 <= len(annotation['segments_info']) <= 60 for annotation in content['annotations'])
    assert 0.4 < np.mean([segment['category_id'] in things for segment in segments]) < 0.9
    for image, annotation in zip(content['images'], content['annotations']):
        photo = cv2.imread(str(drawn / 'drawn' / image['file_name']))
        assert photo.shape == (480, 640, 3) and photo.std() > 30
        stuff = [s['category_id'] for s in annotation['segments_info'] if s['category_id'] not in things]
        assert len(stuff) == len(set(stuff))


def test_to_mmdet__same_scales_and_same_segments(drawn):
    steps = Config.fromfile(CONFIG).train_pipeline
    plain = [step for step in steps if step.type not in ('ColorPolicy', 'PanopticCopyPaste')]
    theirs = to_mmdet(plain)
    assert [step['type'] for step in theirs] == [
        'LoadImageFromFile', 'LoadPanopticAnnotations', 'RandomChoiceResize', 'Pad', 'RandomCrop',
        'RandomFlip', 'PackDetInputs'
    ]
    assert theirs[2] == plain[2] and theirs[5] == plain[5]

    # Without random steps, both sides give the same image and the same masks.
    host = build_dataset('CocoPanopticDataset', [*theirs[:2], theirs[-1]], drawn, 'drawn', 2)
    ours = build_dataset('CocoPanopticMapDataset', [*plain[:2], plain[-1]], drawn, 'drawn', 2)
    for a, b in ((host[i], ours[i]) for i in range(2)):
        assert np.array_equal(a['inputs'], b['inputs'])
        segments, index = b['data_samples'].gt_segments, b['data_samples'].gt_panoptic_seg.segment_map[
            0].numpy()
        rows = np.flatnonzero(segments.is_thing)
        masks = a['data_samples'].gt_instances.masks.masks
        assert len(masks) == len(rows) > 0
        assert all(np.array_equal(mask, index == row + 1) for mask, row in zip(masks, rows))
        labels = np.concatenate([[255], segments.labels])
        assert np.array_equal(a['data_samples'].gt_sem_seg.sem_seg[0], labels[index])


def test_compare_pipelines__ratios(drawn):
    speed = compare_pipelines(Config.fromfile(CONFIG), drawn, 'drawn', num_images=2, repeats=1)
    assert min(speed) > 0
    assert speed.ratio == pytest.approx(speed.ours / speed.mmdet)
    assert speed.ratio_copy_paste == pytest.approx(speed.ours_copy_paste / speed.mmdet)


@pytest.mark.parametrize('color_policy', [True, False])
def test_compare_pipelines__color_policy_on_both_sides_or_neither(drawn, monkeypatch, color_policy):
    seen = []

    def spy(name, pipeline, *args):
        seen.append(pipeline)
        return build_dataset(name, pipeline, *args)

    monkeypatch.setattr(pipeline_speed, 'build_dataset', spy)
    compare_pipelines(Config.fromfile(CONFIG), drawn, 'drawn', 2, 1, color_policy)
    assert len(seen) == 3 and 'PanopticCopyPaste' in str(seen[2]) and 'PanopticCopyPaste' not in str(seen[1])
    assert [str(pipeline).count('ColorPolicy')
            for pipeline in seen] == ([1, 1, 2] if color_policy else [0] * 3)
    for pipeline in seen:
        for step in pipeline:
            TRANSFORMS.build(step)
