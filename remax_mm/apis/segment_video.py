"""Segmentation of videos, frame by frame; segments keep their ids, and with them their colors."""
import sys
from itertools import count, islice
from pathlib import Path
from typing import Dict, Iterable, Iterator, NamedTuple, Optional, Tuple, Union

import cv2
import numpy as np
from mmengine.utils import track_iter_progress

from .panoptic_inferencer import PanopticInferencer
from .panoptic_result import PanopticResult

DEFAULT_FPS = 25.
"""Frames per second of the output if the source does not say, as many cameras."""

MIN_IOU = 0.3


class Video(NamedTuple):
    """An open video.

    Attributes:
        frames: Of (H, W, 3) uint8 in the channel order B, G, R.
        fps: Frames per second.
        num_frames: As its header says, None for a camera.
        capture: To be released at the end.
    """
    frames: Iterator[np.ndarray]
    fps: float
    num_frames: Optional[int]
    capture: cv2.VideoCapture


def open_video(source: str) -> Video:
    """Open a video file, or a camera by its number.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a video that OpenCV reads, or there is no such camera.
    """
    is_camera = source.isdigit()
    if not (is_camera or Path(source).is_file()):
        raise FileNotFoundError(
            f'Expected a video at {source}, or the number of a camera, but there is none.')
    capture = cv2.VideoCapture(int(source) if is_camera else source)
    found, first = capture.read()
    if not found:
        capture.release()
        raise ValueError(
            f'Expected a {"camera" if is_camera else "video"} that OpenCV can read, but {source} '
            'gives no frame')
    fps, num_frames = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return Video(
        frames=_read_frames(capture, first),
        fps=fps if 0 < fps < 1000 else DEFAULT_FPS,
        num_frames=None if is_camera else num_frames,
        capture=capture)


def _read_frames(capture: cv2.VideoCapture, first: np.ndarray) -> Iterator[np.ndarray]:
    found, frame = True, first
    while found:
        yield frame
        found, frame = capture.read()


def continue_ids(previous: PanopticResult,
                 current: PanopticResult,
                 min_iou: float = MIN_IOU) -> PanopticResult:
    """Give the segments of a frame the ids of the segments of the frame before that they overlap.

    Pairs of segments of one class are matched in the order of their IoU, each segment at most once. A stuff
    class has one segment per frame, which keeps its id without overlap. Other segments get the smallest ids
    that neither frame uses.

    Args:
        previous: The frame before, of the same size.
        current: A frame with any ids.
        min_iou: Smallest IoU of a match, in [0, 1].

    Returns:
        ``current`` with other ids, and its segments in their order.
    """
    before = {segment['id']: segment for segment in previous.segments_info}
    now = {segment['id']: segment for segment in current.segments_info}
    id_of = {
        number: old_number
        for number, segment in now.items()
        for old_number, old in before.items() if not segment['is_thing'] and segment['label'] == old['label']
    }
    # Number of pixels of each pair of ids.
    num_old = max(before, default=0) + 1
    overlaps = np.bincount((current.segment_map.astype(np.int64) * num_old + previous.segment_map).ravel())
    candidates = []
    for pair in np.flatnonzero(overlaps).tolist():
        number, old_number = divmod(pair, num_old)
        if number in now and old_number in before and now[number]['label'] == before[old_number]['label']:
            union = now[number]['area'] + before[old_number]['area'] - int(overlaps[pair])
            candidates.append((overlaps[pair] / union, number, old_number))
    for iou, number, old_number in sorted(candidates, reverse=True):
        if iou >= min_iou and number not in id_of and old_number not in id_of.values():
            id_of[number] = old_number
    return _renumber(current, id_of, {*before})


def _renumber(result: PanopticResult, id_of: Dict[int, int], used: set) -> PanopticResult:
    """Replace ids; those without a new id get the smallest ones that are not used."""
    free = (number for number in count(1) if number not in used)
    segments = [dict(segment, id=id_of.get(segment['id']) or next(free)) for segment in result.segments_info]
    old_ids = [segment['id'] for segment in result.segments_info]
    table = np.zeros(max(old_ids, default=0) + 1, np.int32)
    table[old_ids] = [segment['id'] for segment in segments]
    return result._replace(segment_map=table[result.segment_map], segments_info=segments)


def segment_frames(inferencer: PanopticInferencer,
                   frames: Iterable[np.ndarray],
                   pred_score_thr: float = 0.) -> Iterator[Tuple[np.ndarray, PanopticResult]]:
    """Frames of one size, (H, W, 3) uint8 in BGR order, with segments that keep their ids."""
    previous = None
    for frame in frames:
        result, = inferencer.stream(frame, pred_score_thr=pred_score_thr)
        previous = result if previous is None else continue_ids(previous, result)
        yield frame, previous


def segment_video(inferencer: PanopticInferencer,
                  source: str,
                  out: Union[str, Path, None] = None,
                  show: bool = False,
                  max_frames: Optional[int] = None,
                  pred_score_thr: float = 0.) -> int:
    """Draw the segments of each frame of a video.

    Args:
        inferencer: The model.
        source: Video file, or number of a camera.
        out: Video to write, ``.mp4`` or ``.avi``. None writes none.
        show: Whether to show the frames in a window, until the key q is pressed.
        max_frames: At most this many frames, all if None.
        pred_score_thr: Segments with a lower score become void.

    Returns:
        Number of frames.

    Raises:
        FileNotFoundError, ValueError: see :func:`open_video`.
        OSError: the output cannot be written.
    """
    video, writer, number = open_video(source), None, 0
    frames = islice(video.frames, max_frames)
    if inferencer.show_progress and video.num_frames:
        total = min(video.num_frames, max_frames or video.num_frames)
        frames = track_iter_progress((frames, total), file=sys.stdout)
    try:
        for number, (frame, result) in enumerate(segment_frames(inferencer, frames, pred_score_thr), start=1):
            overlay = inferencer.draw(np.ascontiguousarray(frame[..., ::-1]), result)
            drawn = np.ascontiguousarray(overlay[..., ::-1])
            if out is not None:
                writer = writer or _open_writer(Path(out), video.fps, drawn)
                writer.write(drawn)
            if show:
                cv2.imshow('segments', drawn)
                if cv2.waitKey(1) & 0xff == ord('q'):
                    break
    finally:
        video.capture.release()
        if writer is not None:
            writer.release()
    return number


def _open_writer(path: Path, fps: float, frame: np.ndarray) -> cv2.VideoWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = 'MJPG' if path.suffix == '.avi' else 'mp4v'
    height, width = frame.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    if not writer.isOpened():
        raise OSError(f'Expected to write a video .mp4 or .avi, but OpenCV cannot write {path}')
    return writer
