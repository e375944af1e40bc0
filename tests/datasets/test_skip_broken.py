"""Broken files in training: an error that names the file, or another image, as the config says."""
import pytest
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from remax_mm.datasets import CocoPanopticMapDataset, panoptic_dataset
from remax_mm.panoptic_format import BrokenFileError

PIPELINE = [dict(type='LoadImageStrict'), dict(type='LoadPanopticMap')]


def _cut(path) -> str:
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    return str(path)


def _dataset(tiny_set, **kwargs) -> CocoPanopticMapDataset:
    return CocoPanopticMapDataset(**tiny_set.arguments(pipeline=PIPELINE, **kwargs))


def _break(tiny_set, folder: str) -> str:
    """Cut the first image's photo or PNG in two; returns its path."""
    record = _dataset(tiny_set).get_data_info(0)
    path = record['img_path' if folder == 'images' else 'seg_map_path']
    return _cut(type(tiny_set.root)(path))


@pytest.mark.parametrize('folder', ['images', 'png'])
@pytest.mark.parametrize('options', [dict(), dict(skip_broken=True, test_mode=True)])
def test_skip_broken__an_error_that_names_the_file(tiny_set, folder, options):
    path = _break(tiny_set, folder)
    with pytest.raises(BrokenFileError, match=path):
        _dataset(tiny_set, **options)[0]


@pytest.mark.parametrize('folder', ['images', 'png'])
def test_skip_broken__takes_another_and_says_so(tiny_set, folder, monkeypatch):
    said = []
    monkeypatch.setattr(panoptic_dataset, 'print_log', lambda message, **kwargs: said.append(message))
    path = _break(tiny_set, folder)
    dataset = _dataset(tiny_set, skip_broken=True)
    found = {dataset[0]['img_id'] for _ in range(3)}
    assert dataset.get_data_info(0)['img_id'] not in found
    assert dataset.num_skipped >= 3
    said = [message for message in said if path in message]
    assert len(said) == dataset.num_skipped and f'number {dataset.num_skipped} of this process' in said[-1]


def test_skip_broken__other_errors_stay(tiny_set):
    path = _dataset(tiny_set).get_data_info(0)['img_path']
    type(tiny_set.root)(path).unlink()
    with pytest.raises(FileNotFoundError, match=path):
        _dataset(tiny_set, skip_broken=True)[0]


def test_skip_broken__an_error_in_a_worker_names_the_file(tiny_set):
    path = _break(tiny_set, 'images')
    dataset = _dataset(tiny_set)
    loader = DataLoader(dataset, batch_size=1, num_workers=1, sampler=DefaultSampler(dataset, shuffle=False))
    with pytest.raises(BrokenFileError, match=path):
        next(iter(loader))
