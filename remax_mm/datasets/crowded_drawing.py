"""Synthetic scenes with many classes and many segments: small things that partly hide each other, on stuff.

Classes are combinations: the shapes of the mini dataset in five colors, and its textures with other colors.
"""
from typing import Dict, List, Tuple

import numpy as np

from .mini_drawing import STUFF, THINGS, Canvas, Rng, Scene, Texture, Thing

COLORS: Dict[str, Tuple[Tuple[int, ...], Tuple[int, ...]]] = dict(
    red=((225, 45, 40), (120, 10, 15)),
    yellow=((250, 225, 50), (160, 120, 0)),
    green=((60, 220, 90), (0, 105, 40)),
    blue=((60, 110, 245), (10, 30, 130)),
    pink=((250, 140, 225), (140, 30, 120)))

CROWDED_THINGS: Dict[str, Thing] = {
    f'{color} {shape}': Thing(thing.shape, *COLORS[color])
    for shape, thing in THINGS.items()
    for color in COLORS
}


def _with_rolled_colors(texture: Texture) -> Texture:
    """The texture with green, blue and red in the place of red, green and blue."""
    return lambda rng, size: np.roll(texture(rng, size), -1, axis=2)


def _mix(color: Tuple[int, ...], other: Tuple[int, ...], share: float) -> Tuple[int, ...]:
    return tuple(round((1 - share) * a + share * b) for a, b in zip(color, other))


# Clouds are nearly gray, so that other colors make no other class of them.
CROWDED_STUFF: Dict[str, Texture] = {
    **STUFF,
    **{
        f'tinted {name}': _with_rolled_colors(STUFF[name])
        for name in STUFF if name != 'cloud'
    }
}


CROWDED_PALETTE: List[Tuple[int, ...]] = [
    *(_mix(*COLORS[color], number / len(THINGS)) for number in range(len(THINGS)) for color in COLORS),
    (205, 170, 120), (40, 100, 160), (150, 75, 55), (60, 130, 40), (210, 215, 225),
    (170, 120, 205), (100, 160, 40), (75, 55, 150), (130, 40, 60)
]  # yapf: disable


class _CrowdedCanvas(Canvas):
    """Many small things, half of them in groups of one class; those lower in the image cover the others."""

    def add_things(self, count: int) -> None:
        rng, names = self.rng, list(self.things)
        places: List[Tuple[str, np.ndarray]] = []
        while len(places) < count:
            name, middle = str(rng.choice(names)), rng.uniform(0.04, 0.96, 2)
            members = int(rng.integers(2, 6)) if rng.random() < 0.25 else 1
            for _ in range(members):
                places.append((name, np.clip(middle + (members > 1) * rng.normal(0, 0.06, 2), 0.03, 0.97)))
        places = sorted(places[:count], key=lambda place: place[1][1])

        for name, center in places:
            for _ in range(50):  # attempts
                # Diameters of 10 to 80 pixels at 257, and most of them are small.
                radius = self.size * 0.5 * np.exp(rng.uniform(np.log(0.04), np.log(0.31)))
                if self.add_thing(name, center * self.size, radius):
                    break
                center = rng.uniform(0.03, 0.97, 2)

    def _count_under_disc(self, center: np.ndarray, radius: float) -> np.ndarray:
        """With the corners of squares, so that no thing ever hides too much of another."""
        return super()._count_under_disc(center, 1.2 * radius)


def draw_crowded_scene(rng: Rng, size: int) -> Scene:
    """Draw a square scene: 2 to 4 stuff classes, 15 to 55 things, sometimes a crowd or an unlabeled patch."""
    canvas = _CrowdedCanvas(rng, size, CROWDED_THINGS, CROWDED_STUFF, min_area=1 / 2000, min_visible=0.4)
    return canvas.draw(15, 55)
