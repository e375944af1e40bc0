"""Images side by side below their titles, and the enlargement of small images."""
from typing import List, Sequence, Tuple

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
MIN_LENGTH = 384
"""Smaller images are enlarged for labels, in pixels of the longer side."""
GAP = 4
"""Pixels between two panels."""


def enlarge_small(image: np.ndarray, is_map: bool = False) -> np.ndarray:
    """Enlarge an image by the smallest integer with which its longer side has ``MIN_LENGTH`` pixels.

    Args:
        image: (H, W, 3) uint8, or (H, W) integers of a map.
        is_map: Whether to repeat the pixels. Otherwise they are interpolated.

    Returns:
        ``image`` itself if it is large enough or has no pixels.
    """
    longer = max(image.shape[:2])
    if image.size == 0 or longer >= MIN_LENGTH:
        return image
    factor = -(-MIN_LENGTH // longer)
    if is_map:
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    size = image.shape[1] * factor, image.shape[0] * factor
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_CUBIC)


def label_panels(panels: Sequence[Tuple[str, np.ndarray]]) -> np.ndarray:
    """Arrange images of the same size side by side, each below its title, in as many lines as it needs.

    Args:
        panels: Titles and images, (H, W, 3) uint8.

    Returns:
        (H + bar, sum of W + gaps, 3) uint8.
    """
    height, width = panels[0][1].shape[:2]
    scale = min(max(width / 640, 0.35), 1.)
    line = int(round(24 * scale)) + 4
    titles = [wrap_title(title, width - 2 * GAP, scale) for title, _ in panels]
    bar = line * max(len(lines) for lines in titles) + int(round(10 * scale))

    columns = []
    for lines, (_, image) in zip(titles, panels):
        header = np.full((bar, width, 3), 255, dtype=np.uint8)
        for number, text in enumerate(lines, start=1):
            cv2.putText(header, text, (GAP, line * number), FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
        columns += [np.concatenate([header, image]), np.full((bar + height, GAP, 3), 255, dtype=np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def wrap_title(title: str, width: int, scale: float) -> List[str]:
    """Break a title into lines of at most ``width`` pixels, between words or, where a word is too wide,
    inside it. A line has at least one character."""
    lines: List[str] = []
    text = ''
    for word in title.split():
        if text and not _fits(f'{text} {word}', width, scale):
            lines.append(text)
            text = ''
        text = f'{text} {word}'.strip()
        while not _fits(text, width, scale) and len(text) > 1:
            length = max((n for n in range(1, len(text)) if _fits(text[:n], width, scale)), default=1)
            lines.append(text[:length])
            text = text[length:]
    return [*lines, text] if text or not lines else lines


def _fits(text: str, width: int, scale: float) -> bool:
    return cv2.getTextSize(text, FONT, scale, 1)[0][0] <= width
