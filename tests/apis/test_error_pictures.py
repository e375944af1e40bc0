"""Photos and pictures of images with errors; tests/tools has the command line."""
import mmcv
import numpy as np
import pytest

from remax_mm.apis.error_pictures import draw_image, match_colors, photo_info, read_photo, write_worst_images
from remax_mm.evaluation import inspect_pair
from remax_mm.panoptic_format import read_panoptic_files
from remax_mm.visualization import spread_colors
from tests.panoptic_cases import perfect_case, random_case, write_panoptic_files


@pytest.fixture
def files(tmp_path):
    """Predictions of an image with errors and of one without."""
    rng = np.random.default_rng(0)
    return read_panoptic_files(**write_panoptic_files(
        tmp_path, [random_case(rng, 24), perfect_case(rng, 'mixed')]))


def test_photo_info__of_an_image_that_is_not_listed(files):
    assert photo_info(files, files.pairs[1])['file_name'] == '000001.jpg'
    unlisted = files._replace(images={0: files.images[0]})
    with pytest.raises(ValueError, match='image 1, whose annotation is .*000001.png, among the `images`'):
        photo_info(unlisted, unlisted.pairs[1])


def test_read_photo__size_of_the_annotation(files, tmp_path):
    pair, path = files.pairs[0], tmp_path / 'a.png'
    with pytest.raises(FileNotFoundError, match='image 0 at .*a.png'):
        read_photo(pair, path)
    mmcv.imwrite(np.full((24, 24, 3), (1, 2, 3), np.uint8), str(path))  # BGR
    assert read_photo(pair, path)[0, 0].tolist() == [3, 2, 1]
    mmcv.imwrite(np.zeros((20, 24, 3), np.uint8), str(path))
    with pytest.raises(ValueError, match=r'a.png to have the size \(24, 24\) of .*, but it has \(20, 24\)'):
        read_photo(pair, path)


def test_draw_image__same_panels_for_a_perfect_prediction(files):
    image = inspect_pair(files.pairs[1], files.is_thing)
    colors = spread_colors(len(files.classes))
    panels = draw_image(files, files.pairs[1], image, 100., colors)[-384:]
    photo, annotated, predicted = panels[:, :384], panels[:, 388:772], panels[:, 776:]
    assert (photo == 128).all() and (annotated != photo).any() and (annotated == predicted).mean() > 0.5


def test_write_worst_images__worst_first(files, tmp_path):
    images = [inspect_pair(pair, files.is_thing) for pair in files.pairs]
    write_worst_images(files, images, tmp_path / 'worst', 1, tmp_path / 'gt.json')
    assert [path.name for path in (tmp_path / 'worst').iterdir()] == ['001_000000.png']


def test_match_colors__by_name():
    """Another order than that of the dataset."""
    meta = dict(classes=('a', 'b', 'c'), palette=[(1, 1, 1), (2, 2, 2), (3, 3, 3)])
    assert match_colors(['c', 'a'], meta) == [(3, 3, 3), (1, 1, 1)]
    assert match_colors(['d', 'a'], meta) == spread_colors(2)  # other classes
