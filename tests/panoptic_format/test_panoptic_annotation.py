import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from remax_mm.panoptic_format import PanopticAnnotation, get_annotation, write_segment_ids

SEGMENTS = [dict(id=70000, category=0, is_thing=True, iscrowd=True)]


def _sample(path):
    return DetDataSample(metainfo=dict(seg_map_path=str(path), segments_info=SEGMENTS))


def test_get_annotation__stored_or_from_the_png(tmp_path):
    ids = np.array([[0, 70000, 70000]])
    write_segment_ids(tmp_path / 'a.png', ids)
    sample = _sample(tmp_path / 'a.png')
    for source in (sample, sample.to_dict()):
        annotation = get_annotation(source)
        assert annotation.ids.tolist() == ids.tolist() and annotation.ids.dtype == torch.int32
        assert annotation.segments == SEGMENTS

    stored = PanopticAnnotation(torch.zeros(2, 2, dtype=torch.int32), [])
    sample.gt_annotation = stored
    for source in (sample, sample.to_dict(), sample.to('meta'), sample.cpu()):
        assert get_annotation(source) is stored


def test_get_annotation__none():
    assert get_annotation(dict(seg_map_path=None, segments_info=[])) is None
    assert get_annotation(DetDataSample()) is None


def test_get_annotation__missing_png(tmp_path):
    with pytest.raises(FileNotFoundError, match='a.png'):
        get_annotation(_sample(tmp_path / 'a.png'))


def test_get_annotation__of_saved_predictions():
    # mmengine's DumpResults makes a plain tuple of a NamedTuple.
    ids = torch.zeros(2, 2, dtype=torch.int32)
    annotation = get_annotation(dict(gt_annotation=(ids, SEGMENTS)))
    assert isinstance(annotation,
                      PanopticAnnotation) and annotation.ids is ids and annotation.segments == SEGMENTS
