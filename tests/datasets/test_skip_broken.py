"""Broken files in training: an error that names the file, or with `skip_broken` another image."""
import pytest
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from remax_mm.datasets import CocoPanopticMapDataset, panoptic_dataset
from remax_mm.panoptic_format import BrokenFileError

PIPELINE = [dict(type='LoadImageStrict'), dict(type='LoadPanopticMap')]


def _truncate(path) -> str:
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    return str(path)


def _dataset(tiny_set, **kwargs) -> CocoPanopticMapDataset:
    return CocoPanopticMapDataset(**tiny_set.arguments(pipeline=PIPELINE, **kwargs))


def _break(tiny_set, folder: str) -> str:
    """Truncate the photo or the PNG of the first image; returns its path."""
    record = _dataset(tiny_set).get_data_info(0)
    path = record['img_path' if folder == 'images' else 'seg_map_path']
    return _truncate(type(tiny_set.root)(path))


@pytest.mark.parametrize('folder', ['images', 'png'])
@pytest.mark.parametrize('options', [dict(), dict(skip_broken=True, test_mode=True)])
def test_skip_broken__error_names_the_file(tiny_set, folder, options):
    path = _break(tiny_set, folder)
    with pytest.raises(BrokenFileError, match=path):
        _dataset(tiny_set, **options)[0]


@pytest.mark.parametrize('folder', ['images', 'png'])
def test_skip_broken__another_image_and_a_warning(tiny_set, folder, monkeypatch):
    messages = []
    monkeypatch.setattr(panoptic_dataset, 'print_log', lambda message, **kwargs: messages.append(message))
    path = _break(tiny_set, folder)
    dataset = _dataset(tiny_set, skip_broken=True)
    found = {dataset[0]['img_id'] for _ in range(3)}
    assert dataset.get_data_info(0)['img_id'] not in found
    assert dataset.num_skipped >= 3
    messages = [message for message in messages if path in message]
    assert len(messages) == dataset.num_skipped
    assert f'number {dataset.num_skipped} of this process' in messages[-1]


def test_skip_broken__missing_file_is_an_error(tiny_set):
    path = _dataset(tiny_set).get_data_info(0)['img_path']
    type(tiny_set.root)(path).unlink()
    with pytest.raises(FileNotFoundError, match=path):
        _dataset(tiny_set, skip_broken=True)[0]


def test_skip_broken__error_in_a_worker_names_the_file(tiny_set):
    path = _break(tiny_set, 'images')
    dataset = _dataset(tiny_set)
    loader = DataLoader(dataset, batch_size=1, num_workers=1, sampler=DefaultSampler(dataset, shuffle=False))
    with pytest.raises(BrokenFileError, match=path):
        next(iter(loader))
