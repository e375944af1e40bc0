"""Synthetic scenes with panoptic ground truth: things with a shape and a pattern on textured stuff.

All random numbers come from one generator. Images are RGB, with float values in [0, 255] until the last step.
"""
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

import cv2
import numpy as np

Rng = np.random.Generator
Texture = Callable[[Rng, int], np.ndarray]


class DrawnSegment(NamedTuple):
    """A segment of a scene: name of its class, whether it is a crowd region, and its mask (H, W) bool."""
    name: str
    iscrowd: bool
    mask: np.ndarray


class Scene(NamedTuple):
    """An RGB image (H, W, 3) uint8 and its segments without overlap; all other pixels are unlabeled."""
    image: np.ndarray
    segments: List[DrawnSegment]


# Stuff: textures (S, S, 3), each with its own colors and pattern.


def _smooth_noise(rng: Rng, size: int, cells: int) -> np.ndarray:
    """(S, S) smooth noise with a standard deviation of about 1 and blobs of about S / cells pixels."""
    grid = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)


def _tint(rng: Rng, value: np.ndarray, dark: Tuple[int, ...], light: Tuple[int, ...]) -> np.ndarray:
    """Interpolate between the colors ``dark`` (value 0) and ``light`` (value 1), randomly shifted."""
    low, high = np.array([dark, light], np.float32) + rng.uniform(-12, 12, (2, 3)).astype(np.float32)
    return low + np.asarray(value, np.float32)[..., None] * (high - low)


def _sand(rng: Rng, size: int) -> np.ndarray:
    grain = 0.7 * rng.random((size, size), np.float32) + 0.15 * _smooth_noise(rng, size, 6)
    return _tint(rng, grain + 0.15, (150, 120, 80), (235, 205, 150))


def _water(rng: Rng, size: int) -> np.ndarray:
    rows = np.arange(size, dtype=np.float32)[:, None]
    phase = rows * 2 * np.pi / rng.uniform(7, 11) + 1.5 * _smooth_noise(rng, size, 8)
    return _tint(rng, 0.5 + 0.5 * np.sin(phase), (20, 60, 120), (70, 140, 190))


def _brick(rng: Rng, size: int) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] + rng.integers(0, 16, (2, 1, 1))
    height, width = rng.integers(8, 11), rng.integers(14, 19)
    columns = columns + (rows // height % 2) * (width // 2)
    mortar = (rows % height < 2) | (columns % width < 2)
    shade = rng.random((64, 64), np.float32)[rows // height % 64, columns // width % 64]
    return _tint(rng, np.where(mortar, 1.3, 0.5 * shade), (110, 50, 35), (185, 130, 105))


def _meadow(rng: Rng, size: int) -> np.ndarray:
    blades = cv2.blur(rng.random((size, size), np.float32), (1, 7))
    return _tint(rng, 3.5 * (blades - 0.5) + 0.5, (25, 80, 20), (110, 170, 60))


def _cloud(rng: Rng, size: int) -> np.ndarray:
    return _tint(rng, 0.5 + 0.3 * _smooth_noise(rng, size, 5), (165, 175, 190), (240, 243, 248))


STUFF: Dict[str, Texture] = dict(sand=_sand, water=_water, brick=_brick, meadow=_meadow, cloud=_cloud)

# Things: signed distance (negative inside, about in units of the radius) and binary pattern at (u, v).


def _disc(u: np.ndarray, v: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    radius = np.hypot(u, v)
    return radius - 1, np.cos(radius * 14) > 0


def _square(u: np.ndarray, v: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    return np.maximum(abs(u), abs(v)) - 0.85, np.sin(u * 12) > 0


def _triangle(u: np.ndarray, v: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    sides = np.maximum(v, np.maximum(0.866 * u, -0.866 * u) - 0.5 * v) - 0.5
    return sides, np.sin(u * 9) * np.sin(v * 9) > 0.25


def _star(u: np.ndarray, v: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    angle = abs((np.arctan2(v, u) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    radius = np.hypot(u, v)
    # The line from the outer corner (1, 0) to the inner corner at radius 0.45 and 36 degrees.
    along = np.array([1 - 0.45 * np.cos(np.pi / 5), -0.45 * np.sin(np.pi / 5)])
    across = np.array([-along[1], along[0]]) / np.hypot(*along)
    return (radius * np.cos(angle) - 1) * across[0] + radius * np.sin(angle) * across[1], radius < 0.3


def _ring(u: np.ndarray, v: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    return abs(np.hypot(u, v) - 0.7) - 0.3, np.sin(np.arctan2(v, u) * 6) > 0


def _cross(u: np.ndarray, v: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    bars = np.minimum(np.maximum(abs(u) - 1, abs(v) - 0.36), np.maximum(abs(v) - 1, abs(u) - 0.36))
    return bars, np.minimum(abs(u), abs(v)) < 0.13


def _flower(u: np.ndarray, v: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    radius = np.hypot(u, v)
    return radius - 0.75 - 0.25 * np.cos(6 * np.arctan2(v, u)), radius < 0.35


class Thing(NamedTuple):
    """Appearance of a thing class: signed distance and pattern at (u, v), and two colors."""
    shape: Callable[[np.ndarray, np.ndarray], Tuple[np.ndarray, np.ndarray]]
    color: Tuple[int, ...]
    pattern_color: Tuple[int, ...]


THINGS: Dict[str, Thing] = dict(
    disc=Thing(_disc, (255, 140, 20), (150, 60, 0)),
    square=Thing(_square, (230, 40, 200), (130, 10, 120)),
    triangle=Thing(_triangle, (40, 230, 230), (0, 110, 130)),
    star=Thing(_star, (255, 235, 40), (215, 160, 0)),
    ring=Thing(_ring, (120, 60, 230), (190, 150, 255)),
    cross=Thing(_cross, (225, 25, 30), (255, 245, 240)),
    flower=Thing(_flower, (255, 175, 200), (90, 20, 60)))


def draw_thing(rng: Rng, image: np.ndarray, thing: Thing, center: np.ndarray, radius: float) -> np.ndarray:
    """Draw a thing with a random rotation, random brightness and an outline.

    Args:
        rng: Random generator.
        image: (H, W, 3) float, changed in place.
        thing: Appearance.
        center: (x, y) in pixels.
        radius: Pixels from the center to the outermost point; the corners of a square are 1.2 times as far.

    Returns:
        (H, W) bool mask.
    """
    angle = rng.uniform(0, 2 * np.pi)
    left, top = (max(int(c - 1.3 * radius), 0) for c in center)
    right, bottom = (max(int(c + 1.3 * radius) + 2, 0) for c in center)
    window = image[top:bottom, left:right]

    rows, columns = np.mgrid[:window.shape[0], :window.shape[1]].astype(np.float32)
    x, y = (columns + left - center[0]) / radius, (rows + top - center[1]) / radius
    cos, sin = np.cos(angle), np.sin(angle)
    distance, pattern = thing.shape(x * cos + y * sin, y * cos - x * sin)
    distance = radius * distance  # in pixels

    colors = np.array([thing.color, thing.pattern_color]) + rng.uniform(-15, 15, (2, 3))
    shaded = colors[pattern.astype(int)] * rng.uniform(0.7, 1.1)
    outline = np.clip((distance + 2) / 1.2, 0, 1)[..., None]
    opacity = np.clip(0.5 - distance, 0, 1)[..., None]
    window[:] = window * (1 - opacity) + shaded * (1 - 0.75 * outline) * opacity

    mask = np.zeros(image.shape[:2], bool)
    mask[top:bottom, left:right] = distance < 0
    return mask


def draw_stuff(rng: Rng, size: int,
               textures: Mapping[str, Texture]) -> Tuple[np.ndarray, List[Tuple[str, np.ndarray]]]:
    """Draw two to four stuff classes with irregular borders.

    Args:
        rng: Random generator.
        size: Height and width in pixels.
        textures: Of all stuff classes.

    Returns:
        (S, S, 3) float, and the name and the (S, S) bool mask of each class.
    """
    names = rng.permutation(list(textures))[:rng.integers(2, 5)]
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    # Voronoi cells of random points, with borders distorted by noise.
    distances = [np.hypot(rows - y, columns - x) for y, x in rng.random((len(names), 2))]
    owner = np.argmin([distance + 0.12 * _smooth_noise(rng, size, 5) for distance in distances], axis=0)
    image = np.zeros((size, size, 3), np.float32)
    masks = []
    for i, name in enumerate(names):
        mask = owner == i
        masks.append((str(name), mask))
        image[mask] = textures[name](rng, size)[mask]
    return image, masks


class Canvas:
    """A scene under construction; later segments cover earlier ones.

    Args:
        rng: Random generator.
        size: Height and width in pixels.
        things: Appearance of all thing classes.
        textures: Of all stuff classes.
        min_area: Fraction of the image below which the visible part of a segment becomes unlabeled.
        min_visible: Fraction of a thing that later things leave visible.
    """

    def __init__(self, rng: Rng, size: int, things: Mapping[str, Thing], textures: Mapping[str, Texture],
                 min_area: float, min_visible: float) -> None:
        self.rng, self.size, self.things = rng, size, things
        self.min_area, self.min_visible = min_area * size**2, min_visible
        self.image, stuff = draw_stuff(rng, size, textures)
        # Class and iscrowd of each value of `owner`; 0 is unlabeled.
        self.names: List[Tuple[Optional[str], bool]] = [(None, False)]
        self.owner = np.zeros((size, size), np.int32)
        for name, mask in stuff:
            self._own(mask, name)
        self.full_area: Dict[int, int] = {}  # of each thing, before others cover it

    def _own(self, mask: np.ndarray, name: str, iscrowd: bool = False) -> int:
        self.names.append((name, iscrowd))
        self.owner[mask] = len(self.names) - 1
        return len(self.names) - 1

    def _disc(self, center: np.ndarray, radius: float) -> np.ndarray:
        rows, columns = np.ogrid[:self.size, :self.size]
        return np.hypot(columns - center[0], rows - center[1]) < radius

    def _count_under_disc(self, center: np.ndarray, radius: float) -> np.ndarray:
        """Pixels of each segment that a disc would hide."""
        left, top = (max(int(c - radius), 0) for c in center)
        window = self.owner[top:int(center[1] + radius) + 2, left:int(center[0] + radius) + 2]
        rows, columns = np.ogrid[:window.shape[0], :window.shape[1]]
        inside = np.hypot(columns + left - center[0], rows + top - center[1]) < radius
        return np.bincount(window[inside], minlength=len(self.names))

    def add_unlabeled(self) -> None:
        """Draw a gray, noisy patch without a segment."""
        mask = self._disc(self.rng.uniform(0, self.size, 2), self.size * self.rng.uniform(0.06, 0.12))
        self.image[mask] = 128 + 30 * self.rng.standard_normal((mask.sum(), 1))
        self.owner[mask] = 0

    def add_crowd(self) -> None:
        """Draw many small things of one class, close together, as one crowd segment."""
        name = str(self.rng.choice(list(self.things)))
        middle = self.rng.uniform(0.2, 0.8, 2) * self.size
        mask = np.zeros_like(self.owner, bool)
        for _ in range(self.rng.integers(10, 16)):
            center = middle + self.rng.normal(0, 0.075, 2) * self.size
            radius = self.size * self.rng.uniform(0.035, 0.05)
            mask |= draw_thing(self.rng, self.image, self.things[name], center, radius)
        self._own(mask, name, iscrowd=True)

    def add_thing(self, name: str, center: np.ndarray, radius: float) -> bool:
        """Draw a thing, unless it would hide most of another; returns whether it was drawn."""
        visible = np.bincount(self.owner.ravel(), minlength=len(self.names))
        visible -= self._count_under_disc(center, radius)
        if any(visible[i] < self.min_visible * area for i, area in self.full_area.items()):
            return False
        mask = draw_thing(self.rng, self.image, self.things[name], center, radius)
        self.full_area[self._own(mask, name)] = int(mask.sum())
        return True

    def add_things(self, count: int) -> None:
        """Draw things at random places; half of them touch a second thing of their class."""
        rng = self.rng
        for _ in range(20 * count):  # attempts
            if len(self.full_area) >= count:
                return
            name = str(rng.choice(list(self.things)))
            # Diameters are 25 to 45 % of the image size; one in five is smaller.
            diameters = rng.uniform(0.14, 0.25, 2) if rng.random() < 0.2 else rng.uniform(0.25, 0.45, 2)
            radii = diameters * self.size / 2
            center = rng.uniform(0.1, 0.9, 2) * self.size
            placed = self.add_thing(name, center, radii[0])
            if placed and len(self.full_area) < count and rng.random() < 0.5:
                angle = rng.uniform(0, 2 * np.pi)
                step = 0.8 * radii.sum() * np.array([np.cos(angle), np.sin(angle)])
                beside = np.clip(center + step, 0.05 * self.size, 0.95 * self.size)
                self.add_thing(name, beside, radii[1])

    def draw(self, fewest: int, most: int) -> Scene:
        """Draw from ``fewest`` to ``most`` things, sometimes on an unlabeled patch or a crowd."""
        if self.rng.random() < 0.25:
            self.add_unlabeled()
        if self.rng.random() < 0.15:
            self.add_crowd()
        self.add_things(int(self.rng.integers(fewest, most + 1)))
        return self.finish()

    def finish(self) -> Scene:
        """Add uneven light and camera noise; segments with very few visible pixels become unlabeled."""
        light = 1 + 0.12 * np.clip(_smooth_noise(self.rng, self.size, 2), -2, 2)[..., None]
        noise = self.rng.normal(0, 6, self.image.shape)
        image = np.clip(self.image * light + noise, 0, 255).astype(np.uint8)
        area = np.bincount(self.owner.ravel(), minlength=len(self.names))
        segments = [
            DrawnSegment(name, iscrowd, self.owner == i) for i, (name, iscrowd) in enumerate(self.names)
            if name is not None and area[i] >= self.min_area
        ]
        return Scene(image, segments)


def draw_scene(rng: Rng, size: int) -> Scene:
    """Draw a square scene: 2 to 4 stuff classes, 3 to 7 things, sometimes a crowd or an unlabeled patch."""
    canvas = Canvas(rng, size, THINGS, STUFF, min_area=1 / 400, min_visible=0.45)
    return canvas.draw(3, 7)
