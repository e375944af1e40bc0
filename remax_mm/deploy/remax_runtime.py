#!/usr/bin/env python
"""Panoptic segmentation with an exported model; needs numpy, Pillow and onnxruntime only.

    python remax_runtime.py photo.jpg --out-dir out

    from remax_runtime import PanopticModel
    result = PanopticModel('model.onnx')('photo.jpg')
    result.segment_map       # (H, W) int32, 0 is void
    result.segments_info     # id, class_name, score, area, bbox, ... of each segment

The model file comes from tools/deployment/export_onnx.py of remax_mm.
"""
import argparse
import colorsys
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image, ImageOps

FORMAT = 'remax_mm panoptic 1'
METADATA_KEY = 'remax_mm'
IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')

Array = np.ndarray
ImageLike = Union[str, Path, Image.Image, np.ndarray]


class ModelFileError(ValueError):
    """A model file that this program cannot run."""


class PanopticResult(NamedTuple):
    """Segments of one image.

    Attributes:
        image_path: File of the image, None for an image in memory.
        segment_map: (H, W) int32 at the size of the image; 0 is void, other values are segment ids.
        segments_info: A dict per segment: ``id`` (1, 2, ...), ``label`` in [0, K), ``class_name``,
            ``is_thing``, ``score`` in [0, 1], ``area`` in pixels and ``bbox`` (x, y, width, height).
    """
    image_path: Optional[str]
    segment_map: Array
    segments_info: List[Dict[str, Any]]


class MergedSegment(NamedTuple):
    """A segment of the map before it gets its final id: its class and score."""
    label: int
    is_thing: bool
    score: float


class PanopticModel:
    """An exported panoptic model.

    Args:
        path: The ONNX file, or the folder with ``model.onnx``.
        providers: Execution providers of onnxruntime, best first. None takes the CPU.
        num_threads: Threads of an operator; 0 lets onnxruntime choose.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: onnxruntime is not installed.
        ModelFileError: the file is no model of remax_mm.
    """

    def __init__(self,
                 path: Union[str, Path],
                 providers: Optional[Sequence[str]] = None,
                 num_threads: int = 0) -> None:
        self.path = find_model(path)
        self.session = open_session(self.path, providers, num_threads)
        self.metadata = read_metadata(self.session, self.path)
        self.classes: List[str] = self.metadata['classes']

    def __call__(self, image: ImageLike, score_thr: float = 0.) -> PanopticResult:
        """Segment an image.

        Args:
            image: A file, a Pillow image, or a (H, W, 3) uint8 array in RGB order.
            score_thr: Segments with a lower score become void.

        Raises:
            OSError: the file cannot be read.
            ModelFileError: the model was exported without the input of the merging.
            ValueError: the array has another shape or type, or the model predicts NaN.
        """
        if self.metadata['outputs'] != 'slots':
            raise ModelFileError(
                f'Expected a model that prepares the merging of its masks, but {self.path} gives '
                f'{self.metadata["outputs"]}: export it without --logits')
        path = str(image) if isinstance(image, (str, Path)) else None
        pixels = load_image(image)
        outputs = self.run(self.resize(pixels), pixels.shape[:2])
        try:
            segment_map, segments = merge(outputs, self.metadata)
        except ValueError as error:
            raise ValueError(f'{error}, for {path or "an image in memory"}') from error
        return PanopticResult(path, *describe(segment_map, segments, self.classes, score_thr))

    def resize(self, pixels: Array) -> Array:
        """Resize an image (H, W, 3) uint8 to the size that the network takes."""
        size = self.metadata['resize']
        height, width = resized_size(pixels.shape[:2], size['scale'], size['keep_ratio'])
        return resize_bilinear(pixels, height, width)

    def run(self, pixels: Array, output_size: Sequence[int]) -> Dict[str, Array]:
        """Run the graph.

        Args:
            pixels: (h, w, 3) uint8, RGB, not larger than the network input, or of its size if that is fixed.
            output_size: Height and width of the result; not used for logits.

        Returns:
            The outputs of the graph by name, without the batch axis.

        Raises:
            ValueError: the image has another size.
        """
        taken = self.metadata['input']
        size = (taken['height'], taken['width'])
        if taken['is_fixed'] and pixels.shape[:2] != size:
            raise ValueError(
                f'Expected an image of {size} (height, width), the fixed input of {self.path}, but got '
                f'{pixels.shape[:2]}')
        if pixels.shape[0] > size[0] or pixels.shape[1] > size[1]:
            raise ValueError(
                f'Expected an image of at most {size} (height, width), the input of {self.path}, but '
                f'got {pixels.shape[:2]}')
        names = [output.name for output in self.session.get_outputs()]
        feeds = dict(image=pixels[None])
        if self.metadata['outputs'] == 'slots':
            feeds['output_size'] = np.array(output_size, dtype=np.int64)
        return {name: value[0] for name, value in zip(names, self.session.run(names, feeds))}

    def draw(self, image: ImageLike, result: PanopticResult, alpha: float = 0.6) -> Array:
        """Overlay of a result, (H, W, 3) uint8 RGB, on its image."""
        palette = self.metadata.get('palette') or spread_colors(len(self.classes))
        colors = [(0, 0, 0)]
        colors += [
            shade(palette[segment['label']], number if segment['is_thing'] else 0)
            for number, segment in enumerate(result.segments_info, start=1)
        ]
        numbers = result.segment_map
        weight = np.where(numbers > 0, np.float32(alpha), np.float32(0))[..., None]
        drawn = load_image(image) * (1 - weight) + np.array(colors, dtype=np.float32)[numbers] * weight
        drawn[:, :-1][numbers[:, 1:] != numbers[:, :-1]] = 255
        drawn[:-1][numbers[1:] != numbers[:-1]] = 255
        return np.rint(drawn).astype(np.uint8)


# Model file


def find_model(path: Union[str, Path]) -> Path:
    """The ONNX file at a path, or in a folder."""
    path = Path(path)
    file = path / 'model.onnx' if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f'Expected a model at {file}, but there is no such file')
    return file


def open_session(path: Path, providers: Optional[Sequence[str]], num_threads: int) -> Any:
    """A session of onnxruntime.

    Raises:
        ImportError: onnxruntime is not installed.
        ModelFileError: it cannot load the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            'Expected the package onnxruntime: `pip install onnxruntime`, or the extra `onnx` of '
            'remax_mm') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=list(providers or ['CPUExecutionProvider']))
    except Exception as error:  # onnxruntime raises a class of its own for each kind of error
        raise ModelFileError(f'Expected an ONNX model at {path}, but onnxruntime says: {error}') from error


def read_metadata(session: Any, path: Path) -> Dict[str, Any]:
    """The metadata of the export.

    Raises:
        ModelFileError: there is none, or it is for another program.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelFileError(f'Expected the metadata `{METADATA_KEY}`, which tools/deployment/export_onnx.py '
                             f'writes, in {path}, but there is none')
    metadata = json.loads(text)
    if metadata.get('format') != FORMAT:
        raise ModelFileError(f'Expected the format {FORMAT!r} in the metadata of {path}, but got '
                             f'{metadata.get("format")!r}')
    return metadata


# Images


def load_image(image: ImageLike) -> Array:
    """An image as (H, W, 3) uint8 RGB: turned upright, without alpha, gray as three equal channels.

    Raises:
        OSError: the file cannot be read.
        ValueError: an array is not (H, W, 3) uint8.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError('Expected an image (height, width, 3) of uint8 in RGB order, but got '
                             f'{image.shape} of {image.dtype}')
        return image
    if not isinstance(image, Image.Image):
        with Image.open(image) as opened:
            opened.load()
        image = opened
    image = ImageOps.exif_transpose(image) or image
    if image.mode.startswith('I;16') or image.mode == 'I':  # 16 bits of gray: the upper 8, as OpenCV does
        values = np.asarray(image).astype(np.int64) >> 8
        return np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == 'RGBA':
        return np.ascontiguousarray(np.asarray(image)[..., :3])
    return np.asarray(image.convert('RGB'))


def resized_size(size: Sequence[int], scale: Sequence[int], keep_ratio: bool) -> Tuple[int, int]:
    """Height and width after a resize to ``scale`` (width, height), or into it if the ratio is kept."""
    if not keep_ratio:
        return scale[1], scale[0]
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return max(int(size[0] * factor + 0.5), 1), max(int(size[1] * factor + 0.5), 1)


def resize_bilinear(pixels: Array, height: int, width: int) -> Array:
    """Resize (H, W, 3) uint8 as OpenCV's ``INTER_LINEAR`` does, bit by bit: in integers of 11 bits.

    Pillow's bilinear filter differs: it averages all pixels when it makes an image smaller.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.shape[:2] == (2 * height, 2 * width):  # OpenCV then averages four pixels
        values = pixels.astype(np.uint16)
        columns = values[:, ::2] + values[:, 1::2]
        return ((columns[::2] + columns[1::2] + 2) >> 2).astype(np.uint8)

    left, right = _positions(pixels.shape[1], width)
    is_inside = (left >= 0) & (left < pixels.shape[1] - 1)
    right = np.where(is_inside, right, 0)
    left = left.clip(0, pixels.shape[1] - 1)
    weights = _weights(right)[:, :, None]
    rows = pixels[:, left].astype(np.int32) * weights[0]
    rows += pixels[:, (left + 1).clip(max=pixels.shape[1] - 1)] * weights[1]
    rows >>= 4

    upper, lower = _positions(pixels.shape[0], height)
    weights = _weights(lower)[:, :, None, None]
    result = (rows[upper.clip(0, pixels.shape[0] - 1)] * weights[0]) >> 16
    result += (rows[(upper + 1).clip(0, pixels.shape[0] - 1)] * weights[1]) >> 16
    return ((result + 2) >> 2).astype(np.uint8)


def _positions(length: int, new_length: int) -> Tuple[Array, Array]:
    """Index of the pixel before each new one, and the distance to it in float32."""
    position = ((np.arange(new_length) + 0.5) * (length / new_length) - 0.5).astype(np.float32)
    index = np.floor(position)
    return index.astype(np.int64), position - index


def _weights(distance: Array) -> Array:
    """Weights (2, L) of the pixel before and the one after, in units of 1 / 2048."""
    weights = np.stack([np.float32(1) - distance, distance]).astype(np.float32) * np.float32(2048)
    return np.rint(weights).astype(np.int32)


# Merging of masks


def merge(outputs: Dict[str, Array], metadata: Dict[str, Any]) -> Tuple[Array, List[MergedSegment]]:
    """Segment map (H, W) int32 and the segments 1, 2, ... of it, from the outputs of the graph.

    Raises:
        ValueError: a value of the model is not finite.
    """
    scores = [value for name, value in outputs.items() if 'scores' in name or name == 'probabilities']
    if not all(np.isfinite(value).all() for value in scores):
        raise ValueError('Expected finite predictions, but the model predicts NaN or infinity')
    num_things, thresholds = metadata['num_things'], metadata['thresholds']
    merging = merge_mask_wise if metadata['merging'] == 'mask-wise' else merge_pixel_wise
    return merging(outputs, num_things, **thresholds)


def merge_mask_wise(outputs: Dict[str, Array], num_things: int, thing_threshold: float,
                    stuff_threshold: float, pixel_threshold: float, overlap_threshold: float,
                    class_order_weight: float, mask_order_weight: float, thing_area: int,
                    stuff_area: int) -> Tuple[Array, List[MergedSegment]]:
    """Paste the slots, most confident first (``fuse_panoptic`` of remax_mm, which documents the thresholds).

    The areas and the pairwise overlaps of the slots determine which slots are pasted: a pixel belongs to at
    most two slots. The map is made in one step.
    """
    classes, class_scores, mask_scores = (outputs[key] for key in ('classes', 'class_scores', 'mask_scores'))
    is_thing = classes < num_things
    is_confident = class_scores > np.where(is_thing, thing_threshold, stuff_threshold).astype(np.float32)
    order = class_scores**np.float32(class_order_weight) * mask_scores**np.float32(mask_order_weight)

    # Paste each slot of which enough pixels are free; stuff of one class is one segment.
    segments: List[MergedSegment] = []
    areas: List[int] = []
    number_of_stuff: Dict[int, int] = {}
    segment_of_slot = np.zeros(len(classes), dtype=np.int32)
    rank_of_slot = np.full(len(classes), len(classes))
    for rank, slot in enumerate(np.argsort(-order, kind='stable')):
        area = int(outputs['areas'][slot])
        free = area - int(outputs['overlaps'][slot][segment_of_slot > 0].sum())
        if not is_confident[slot] or area == 0 or free <= overlap_threshold * area:
            continue
        label, number = int(classes[slot]), len(segments) + 1
        if not is_thing[slot]:
            number = number_of_stuff.setdefault(label, number)
        if number > len(segments):
            score = float(class_scores[slot] * mask_scores[slot])
            segments.append(MergedSegment(label, bool(is_thing[slot]), score))
            areas.append(0)
        areas[number - 1] += free
        segment_of_slot[slot], rank_of_slot[slot] = number, rank

    new_numbers, segments = drop_small_segments(segments, areas, thing_area, stuff_area)
    segment_of_slot = new_numbers[segment_of_slot]

    # A pixel of two pasted slots belongs to the one that was pasted first.
    slots = outputs['slots']
    is_own = outputs['probabilities'] > np.float32(pixel_threshold)
    ranks = np.where(is_own, rank_of_slot[slots], len(classes))
    winner = np.where(ranks[0] <= ranks[1], slots[0], slots[1])
    return np.where(ranks.min(0) < len(classes), segment_of_slot[winner], 0).astype(np.int32), segments


def merge_pixel_wise(outputs: Dict[str,
                                   Array], num_things: int, class_threshold: float, pixel_threshold: float,
                     thing_area: int, stuff_area: int) -> Tuple[Array, List[MergedSegment]]:
    """Assign each pixel to its best slot (``fuse_panoptic_pixelwise`` of remax_mm)."""
    classes, class_scores = outputs['classes'], outputs['class_scores']
    slot_areas = outputs['areas'].astype(np.int64)
    sums = class_scores.astype(np.float64) * outputs['mask_scores'] * slot_areas

    # One segment for each confident thing slot and for each stuff class of the confident slots
    numbers: Dict[Tuple[int, int], int] = {}
    segment_of_slot = np.zeros(len(classes), dtype=np.int32)
    for slot in np.flatnonzero(class_scores >= np.float32(class_threshold)).tolist():
        label = int(classes[slot])
        key = (label, slot if label < num_things else -1)
        segment_of_slot[slot] = numbers.setdefault(key, len(numbers) + 1)
    totals, areas = (
        np.bincount(segment_of_slot, values,
                    len(numbers) + 1)[1:] for values in (sums, slot_areas))
    segments = [
        MergedSegment(label, label < num_things, float(total / max(area, 1)))
        for (label, _), total, area in zip(numbers, totals, areas)
    ]

    new_numbers, segments = drop_small_segments(segments, areas.tolist(), thing_area, stuff_area)
    is_own = outputs['probabilities'][0] > np.float32(pixel_threshold)
    return np.where(is_own, new_numbers[segment_of_slot][outputs['slots'][0]], 0).astype(np.int32), segments


def drop_small_segments(segments: Sequence[MergedSegment], areas: Sequence[float], thing_area: int,
                        stuff_area: int) -> Tuple[Array, List[MergedSegment]]:
    """New numbers of 0 (void) and of all segments, 0 for a segment below its area limit; the others."""
    kept: List[MergedSegment] = []
    new_numbers = [0]
    for segment, area in zip(segments, areas):
        is_kept = area >= max(thing_area if segment.is_thing else stuff_area, 1)
        kept += [segment] * is_kept
        new_numbers.append(len(kept) if is_kept else 0)
    return np.array(new_numbers, dtype=np.int32), kept


def describe(segment_map: Array, segments: Sequence[MergedSegment], classes: Sequence[str],
             score_thr: float) -> Tuple[Array, List[Dict[str, Any]]]:
    """Number the segments, stuff by its class and then things, and describe those that have a pixel."""
    areas = np.bincount(segment_map.ravel(), minlength=len(segments) + 1)
    numbers = [
        number for number, segment in enumerate(segments, start=1)
        if areas[number] > 0 and segment.score >= score_thr
    ]
    numbers.sort(
        key=lambda n: (segments[n - 1].is_thing, n if segments[n - 1].is_thing else segments[n - 1].label))
    ids = np.zeros(len(segments) + 1, dtype=np.int32)
    ids[numbers] = np.arange(1, len(numbers) + 1)
    segment_map = ids[segment_map]
    segments_info = []
    for number, box in zip(numbers, find_boxes(segment_map, len(numbers))):
        segment = segments[number - 1]
        segments_info.append(
            dict(
                id=int(ids[number]),
                label=segment.label,
                class_name=classes[segment.label],
                is_thing=segment.is_thing,
                score=segment.score,
                area=int(areas[number]),
                bbox=box))
    return segment_map, segments_info


def find_boxes(segment_map: Array, num_segments: int) -> List[Tuple[int, int, int, int]]:
    """x, y, width and height of the segments 1, 2, ..., each of which has a pixel."""
    extent = []
    for axis, length in enumerate(segment_map.shape):
        index = np.arange(length, dtype=np.int32).reshape((-1, 1) if axis == 0 else (1, -1))
        index = np.broadcast_to(index, segment_map.shape)
        first, last = np.full(num_segments + 1, length), np.full(num_segments + 1, -1)
        np.minimum.at(first, segment_map, index)
        np.maximum.at(last, segment_map, index)
        extent.append((first[1:], last[1:] - first[1:] + 1))
    (top, height), (left, width) = extent
    return [tuple(box) for box in np.stack([left, top, width, height], axis=1).tolist()]


# Colors


def spread_colors(number: int) -> List[Tuple[int, int, int]]:
    """Colors of different hue, in steps of the golden ratio."""
    return [_to_rgb(step * 0.618034 % 1, 0.45 + 0.15 * (step % 3), 0.75) for step in range(number)]


def shade(color: Sequence[int], number: int) -> Tuple[int, int, int]:
    """Vary the lightness of a class color for a numbered segment; 0 keeps it."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in color))
    if number:
        lightness = min(max(lightness + 0.35 * (number * 1.90983 % 1 - 0.5), 0.25), 0.8)
    return _to_rgb(hue, lightness, saturation)


def _to_rgb(hue: float, lightness: float, saturation: float) -> Tuple[int, int, int]:
    red, green, blue = (round(255 * channel) for channel in colorsys.hls_to_rgb(hue, lightness, saturation))
    return red, green, blue


# Command line


def save_result(result: PanopticResult, overlay: Array, out_dir: Path, name: str) -> List[Path]:
    """Write ``<name>_panoptic.png`` (id = R + 256 G + 256^2 B), ``<name>_overlay.png``, ``<name>.json``."""
    out_dir.mkdir(parents=True, exist_ok=True)
    files = [out_dir / f'{name}{suffix}' for suffix in ('_panoptic.png', '_overlay.png', '.json')]
    colors = np.stack([result.segment_map >> shift & 255 for shift in (0, 8, 16)], axis=2)
    Image.fromarray(colors.astype(np.uint8)).save(files[0])
    Image.fromarray(overlay).save(files[1])
    height, width = result.segment_map.shape
    content = dict(
        image=result.image_path,
        height=height,
        width=width,
        panoptic_png=files[0].name,
        segments_info=result.segments_info)
    files[2].write_text(json.dumps(content, indent=2), encoding='utf-8')
    return files


def list_images(paths: Sequence[Path]) -> List[Path]:
    """The given files, and the images in given folders, sorted by name."""
    files: List[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        else:
            files.append(path)
    if not files:
        raise FileNotFoundError(
            f'Expected images ({", ".join(IMAGE_SUFFIXES)}) in {paths[0]}, but there are none')
    return files


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Segment images; bad images are reported at the end."""
    parser = argparse.ArgumentParser(description='Panoptic segmentation of images with an exported model.')
    parser.add_argument('images', nargs='+', type=Path, help='image files, or folders of images')
    parser.add_argument(
        '--out-dir', type=Path, default=Path('out'), help='folder of the results (default: out)')
    parser.add_argument(
        '--model',
        type=Path,
        default=Path(__file__).with_name('model.onnx'),
        help='ONNX file (default: model.onnx beside this file)')
    parser.add_argument('--score-thr', type=float, default=0., help='lower scores become void (default: 0)')
    parser.add_argument('--threads', type=int, default=0, help='threads (default: all cores)')
    args = parser.parse_args(arguments)
    failed = []
    try:
        model = PanopticModel(args.model, num_threads=args.threads)
        files = list_images(args.images)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    for file in files:
        try:
            pixels = load_image(file)
            result = model(pixels, args.score_thr)._replace(image_path=str(file))
            saved = save_result(result, model.draw(pixels, result), args.out_dir, file.stem)
            print(f'{file}: {len(result.segments_info)} segments, {saved[1]}')
        except (OSError, ValueError) as error:
            failed.append(f'error: {file}: {error}')
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
