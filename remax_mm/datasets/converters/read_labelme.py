"""JSON files of labelme (https://github.com/wkentaro/labelme), one for each photo."""
import base64
import binascii
import io
import math
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from PIL import Image
from pydantic import ConfigDict, with_config
from typing_extensions import NotRequired, TypedDict

from .annotation_files import Coordinate, read_json, relative_name
from .shapes import Shape, ShapedPhoto, box_polygon, circle_polygon

MAX_PIXELS = 2**28
"""Size limit of a mask, so that a wrong size cannot fill the memory."""

_keep_other_keys = with_config(ConfigDict(extra='ignore'))


@_keep_other_keys
class LabelmeShape(TypedDict):
    """Entry of ``shapes``; ``mask`` is a PNG in base64 for the box of the two points."""
    label: str
    points: List[Tuple[Coordinate, Coordinate]]
    shape_type: NotRequired[Optional[str]]
    group_id: NotRequired[Optional[int]]
    mask: NotRequired[Optional[str]]


@_keep_other_keys
class LabelmeFile(TypedDict):
    """Content of a file."""
    shapes: List[LabelmeShape]
    imagePath: str
    imageHeight: NotRequired[Optional[int]]
    imageWidth: NotRequired[Optional[int]]


def read_labelme(folder: Path) -> List[ShapedPhoto]:
    """Read the files of a folder and of its subfolders, sorted by name.

    Shapes with the same label and ``group_id`` are one object. The photo of a file has the name in
    ``imagePath``, and is in the same subfolder of the folder of photos.

    Raises:
        ValueError: there is no file, or one has another content.
    """
    paths = sorted(folder.rglob('*.json'))
    if not paths:
        raise ValueError(f'Expected JSON files of labelme in {folder}, but there is none')
    return [_read_file(path, folder) for path in paths]


def _read_file(path: Path, folder: Path) -> ShapedPhoto:
    content = read_json(path, LabelmeFile, 'annotations of labelme')
    photo = Path(content['imagePath'].replace('\\', '/')).name
    file_name = (path.parent / relative_name(photo, path)).relative_to(folder).as_posix()
    height, width = content.get('imageHeight'), content.get('imageWidth')
    size = None if height is None or width is None else (height, width)

    groups: Dict[Any, List[int]] = {}
    for number, shape in enumerate(content['shapes']):
        group = shape.get('group_id')
        groups.setdefault(number if group is None else (shape['label'], group), []).append(number)
    try:
        shapes = [
            _join([content['shapes'][n] for n in numbers], numbers, size) for numbers in groups.values()
        ]
    except ValueError as error:
        raise ValueError(f'Cannot read {path}: {error}') from None
    return ShapedPhoto(path, file_name, size, shapes)


def _join(entries: List[LabelmeShape], numbers: List[int], size: Optional[Tuple[int, int]]) -> Shape:
    """One object of all shapes of a group."""
    where = f'shape {" and ".join(map(str, numbers))}'
    regions = [_region(entry, f'shape {number}', size) for entry, number in zip(entries, numbers)]
    masks = [region for region in regions if isinstance(region, np.ndarray)]
    if not masks:
        return Shape(where, entries[0]['label'], regions)
    if len(masks) < len(regions):
        raise ValueError(f'Expected only polygons or only masks in a group, but {where} mix them')
    return Shape(where, entries[0]['label'], np.logical_or.reduce(masks))


def _region(entry: LabelmeShape, where: str, size: Optional[Tuple[int, int]]) -> Any:
    """A polygon [x1, y1, ...] or a mask (H, W) bool."""
    points, kind = entry['points'], entry.get('shape_type') or 'polygon'
    if kind == 'polygon' or (kind == 'rectangle' and len(points) == 4):
        return [value for point in points for value in point]
    if kind == 'rectangle' and len(points) == 2:
        return box_polygon(*points[0], *points[1])
    if kind == 'circle' and len(points) == 2:
        radius = math.dist(*points)
        return circle_polygon(*points[0], radius, radius)
    if kind == 'mask' and len(points) == 2 and entry.get('mask') and size is not None:
        return _decode_mask(entry, where, size)
    raise ValueError(f'Expected a polygon, rectangle, circle or mask as {where} ({entry["label"]}), but got '
                     f'{kind} with {len(points)} points')


def _decode_mask(entry: LabelmeShape, where: str, size: Tuple[int, int]) -> np.ndarray:
    """Mask of the image from the PNG of a box."""
    (left, top), _ = entry['points']
    if not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise ValueError(f'Expected an image of at most {MAX_PIXELS} pixels, but its size is {size}')
    x, y = round(left), round(top)
    try:
        with Image.open(
                io.BytesIO(base64.b64decode(entry['mask'] or '', validate=True)), formats=('PNG', )) as png:
            if png.width > size[1] or png.height > size[0]:
                raise ValueError(f'it has {png.width} x {png.height} pixels')
            crop = np.asarray(png.convert('L')) > 0
    except (OSError, SyntaxError, ValueError, binascii.Error) as error:
        raise ValueError(f'Expected a PNG in the mask of {where}, but {error}') from None
    mask = np.zeros(size, bool)
    if x < 0 or y < 0 or x + crop.shape[1] > size[1] or y + crop.shape[0] > size[0]:
        raise ValueError(
            f'Expected the mask of {where} inside of the image of {size[1]} x {size[0]} pixels, but '
            f'it has {crop.shape[1]} x {crop.shape[0]} pixels at ({x}, {y})')
    mask[y:y + crop.shape[0], x:x + crop.shape[1]] = crop
    return mask
