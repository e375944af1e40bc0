"""Videos: segments keep their ids while they overlap, and a file comes out with as many frames as went in."""
import runpy

import cv2
import numpy as np
import pytest

from remax_mm.apis import PanopticResult
from remax_mm.apis.segment_video import continue_ids, open_video, segment_frames, segment_video
from tests.color_inferencer import color_inferencer
from tests.color_model import CAT, CAT_2, GRASS, SKY, paint
from tests.conftest import REPOSITORY

S = slice
CAT_LABEL, DOG_LABEL, SKY_LABEL = 0, 1, 2


def _result(segment_map, labels):
    """A result from a map of ids and the labels of its ids."""
    segment_map = np.array(segment_map, np.int32)
    segments = [
        dict(id=number, label=label, is_thing=label < SKY_LABEL, area=int((segment_map == number).sum()))
        for number, label in labels.items()
    ]
    return PanopticResult(None, segment_map, segments)


def _continued(before, now):
    result = continue_ids(before, now)
    assert sorted(set(np.unique(result.segment_map)) - {0}) == sorted(s['id'] for s in result.segments_info)
    return result.segment_map.tolist()


def test_continue_ids__things_keep_them_in_any_order():
    before = _result([[5, 5, 5, 0, 9, 9, 9]], {5: CAT_LABEL, 9: CAT_LABEL})
    # The ids are swapped, and both have moved by a pixel.
    now = _result([[0, 2, 2, 2, 0, 1, 1]], {1: CAT_LABEL, 2: CAT_LABEL})
    assert _continued(before, now) == [[0, 5, 5, 5, 0, 9, 9]]


def test_continue_ids__other_class_small_overlap_and_new_segments():
    before = _result([[1, 1, 1, 1, 4, 4, 4, 4]], {1: CAT_LABEL, 4: CAT_LABEL})
    # A dog where the cat 1 was; of cat 4 one of seven pixels of the union; both get the smallest free ids.
    now = _result([[1, 1, 1, 1, 2, 0, 0, 0]], {1: DOG_LABEL, 2: CAT_LABEL})
    assert _continued(before, now) == [[2, 2, 2, 2, 3, 0, 0, 0]]


def test_continue_ids__an_id_is_given_once_to_the_larger_overlap():
    before = _result([[7, 7, 7, 7, 7, 7]], {7: CAT_LABEL})
    now = _result([[1, 1, 2, 2, 2, 2]], {1: CAT_LABEL, 2: CAT_LABEL})
    assert _continued(before, now) == [[1, 1, 7, 7, 7, 7]]


def test_continue_ids__stuff_needs_no_overlap():
    before = _result([[3, 0, 0]], {3: SKY_LABEL})
    assert _continued(before, _result([[0, 0, 1]], {1: SKY_LABEL})) == [[0, 0, 3]]
    assert _continued(before, _result([[0, 0, 0]], {})) == [[0, 0, 0]]
    assert _continued(_result([[0, 0, 0]], {}), before) == [[1, 0, 0]]


@pytest.fixture(scope='module')
def inferencer():
    """The order of the segments of two frames is random."""
    return color_inferencer()


@pytest.fixture(scope='module')
def frames():
    """Two cats that walk towards each other."""
    return [
        paint((64, 64), (SKY, S(0, 32), S(None)), (GRASS, S(32, None), S(None)),
              (CAT, S(16, 48), S(40 - 2 * time, 58 - 2 * time)),
              (CAT_2, S(16, 48), S(2 + 2 * time, 20 + 2 * time))) for time in range(6)
    ]


@pytest.fixture
def video(tmp_path, frames):
    writer = cv2.VideoWriter(str(tmp_path / 'in.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 10, (64, 64))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return tmp_path / 'in.avi'


def test_segment_frames__ids_follow_the_segments(inferencer, frames):
    ids_of_color = {}
    for frame, result in segment_frames(inferencer, frames):
        for color in (CAT, CAT_2, SKY, GRASS):
            number, = np.unique(result.segment_map[(frame == color.rgb[::-1]).all(-1)])
            ids_of_color.setdefault(color, set()).add(number)
    assert all(len(ids) == 1 for ids in ids_of_color.values())
    assert len({*map(tuple, ids_of_color.values())}) == 4


@pytest.mark.parametrize('suffix', ['.avi', '.mp4'])
def test_segment_video__writes_all_frames(suffix, video, inferencer, frames, tmp_path):
    out = tmp_path / 'new' / f'out{suffix}'
    assert segment_video(inferencer, str(video), out) == len(frames)
    written = open_video(str(out))
    assert written.fps == 10
    pictures = list(written.frames)
    written.capture.release()
    # The frames are those of the drawing, up to the compression.
    results = list(segment_frames(inferencer, open_video(str(video)).frames))
    assert len(pictures) == len(results) == len(frames)
    for picture, (frame, result) in zip(pictures, results):
        drawn = inferencer.draw(np.ascontiguousarray(frame[..., ::-1]), result)[..., ::-1]
        assert picture.shape == drawn.shape
    # A cat has its color in the first and in the last frame, and the cats have different ones.
    row = 19 * pictures[0].shape[0] // 64
    column = [pictures[0].shape[1] * x // 64 for x in (49, 11, 39, 21)]
    first, last = pictures[0], pictures[-1]
    cat, cat_2, cat_last, cat_2_last = (picture[row, x].astype(int)
                                        for picture, x in zip((first, first, last, last), column))
    assert abs(cat - cat_last).max() < 30 < abs(cat - cat_2).max()
    assert abs(cat_2 - cat_2_last).max() < 30


def test_segment_video__first_frames_in_a_window(video, inferencer, monkeypatch):
    shown = []
    monkeypatch.setattr(cv2, 'imshow', lambda title, picture: shown.append(picture))
    monkeypatch.setattr(cv2, 'waitKey', lambda delay: ord('q') if len(shown) == 3 else -1)
    assert segment_video(inferencer, str(video), max_frames=2, show=True) == 2
    assert segment_video(inferencer, str(video), show=True) == 1  # q at the third frame that was shown


def test_open_video__bad_input(tmp_path):
    (tmp_path / 'text.mp4').write_text('no video')
    with pytest.raises(ValueError, match='text.mp4 gives no frame'):
        open_video(str(tmp_path / 'text.mp4'))
    with pytest.raises(FileNotFoundError, match='none.mp4'):
        open_video('none.mp4')
    with pytest.raises(ValueError, match='a camera that OpenCV can read, but 97 gives'):
        open_video('97')


def test_segment_video__unwritable_output(video, inferencer, tmp_path):
    with pytest.raises(OSError, match='cannot write .*out.txt'):
        segment_video(inferencer, str(video), tmp_path / 'out.txt')


def test_video_demo__arguments(capsys):
    demo = runpy.run_path(str(REPOSITORY / 'demo' / 'video_demo.py'))
    parse_args, main = demo['parse_args'], demo['main']
    with pytest.raises(SystemExit):
        parse_args(['a.mp4', 'remax-t'])
    assert 'expected --out, --show or both' in capsys.readouterr().err
    with pytest.raises(SystemExit, match='error: Expected a checkpoint for the config remax-t, but got none'):
        main(['0', 'remax-t', '--show'])
    args = parse_args(['0', 'remax-t', 'a.pth', '--show'])
    assert (args.video, args.model, args.checkpoint, args.out) == ('0', 'remax-t', 'a.pth', None)
