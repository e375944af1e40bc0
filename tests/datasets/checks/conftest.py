"""A small correct dataset, for tests that add one defect to it."""
import json
from pathlib import Path
from typing import Callable, List, NamedTuple, Tuple

import cv2
import numpy as np
import pytest

from remax_mm.datasets import LoadImageStrict, LoadPanopticMap, PanopticMapDataset
from remax_mm.datasets.checks import check_image, check_json
from remax_mm.datasets.checks.json_check import JsonReport
from remax_mm.panoptic_format import write_segment_ids

CATEGORIES = [
    dict(id=3, name='cat', isthing=1),
    dict(id=7, name='grass', isthing=0),
    dict(id=9, name='sky', isthing=0)
]
# Two things, two stuff classes, a crowd region and a row of void, on 6 x 8 pixels.
IDS = np.array([
    [50, 50, 50, 50, 50, 50, 50, 50],
    [50, 11, 11, 50, 50, 12, 12, 50],
    [40, 11, 11, 40, 40, 12, 12, 40],
    [40, 40, 40, 40, 40, 40, 40, 40],
    [40, 40, 40, 60, 60, 40, 40, 40],
    [0, 0, 0, 0, 0, 0, 0, 0],
])
SEGMENTS = [
    dict(id=11, category_id=3, iscrowd=0, area=4, bbox=[1, 1, 2, 2]),
    dict(id=12, category_id=3, iscrowd=0, area=4, bbox=[5, 1, 2, 2]),
    dict(id=40, category_id=7, iscrowd=0, area=18, bbox=[0, 2, 8, 3]),
    dict(id=50, category_id=9, iscrowd=0, area=12, bbox=[0, 0, 8, 2]),
    dict(id=60, category_id=3, iscrowd=1, area=2, bbox=[3, 4, 2, 1]),
]


class CheckedSet(NamedTuple):
    """A dataset of two equal images, ``images/{a,b}.jpg`` and ``pngs/{a,b}.png``.

    Attributes:
        folder: Folder of the dataset.
        content: Content of its JSON; a test may change it.
    """
    folder: Path
    content: dict

    def check_json(self) -> JsonReport:
        self.write()
        return check_json(
            str(self.folder / 'panoptic.json'),
            image_dir=str(self.folder / 'images'),
            png_dir=str(self.folder / 'pngs'),
            photo_name=lambda image: image['file_name'],
            png_name=lambda image: f'{image["id"]}.png')

    def check(self) -> List[Tuple[str, str]]:
        """Kind and file name of each finding in the dataset."""
        report = self.check_json()
        categories = {category.id: category for category in report.categories}
        findings = list(report.findings)
        for task in report.tasks:
            findings += check_image(task, categories).findings
        return [(finding.kind, Path(finding.file).name) for finding in findings]

    def write(self) -> None:
        """Write the content of the JSON."""
        (self.folder / 'panoptic.json').write_text(json.dumps(self.content))

    def load(self) -> List[dict]:
        """Load all images as training does."""
        self.write()
        dataset = PanopticMapDataset(
            data_root=str(self.folder),
            ann_file='panoptic.json',
            data_prefix=dict(img='images', seg='pngs'),
            pipeline=[LoadImageStrict(), LoadPanopticMap()])
        return [dataset[number] for number in range(len(dataset))]

    def assert_finds(self, add_defect: Callable[['CheckedSet'], None], kind: str, file: str) -> None:
        """Check that a correct dataset has no finding, and with a defect no other than that defect."""
        assert self.check() == []
        add_defect(self)
        found = self.check()
        # A pixel with another id also changes an area.
        assert {found_kind for found_kind, _ in found} <= {kind, 'area_wrong'}
        assert (kind, file) in found


@pytest.fixture
def checked_set(tmp_path: Path) -> CheckedSet:
    for folder in ('images', 'pngs'):
        (tmp_path / folder).mkdir()
    for stem in ('a', 'b'):
        cv2.imwrite(str(tmp_path / 'images' / f'{stem}.jpg'), np.full((6, 8, 3), 90, np.uint8))
        write_segment_ids(tmp_path / 'pngs' / f'{stem}.png', IDS)
    content = dict(
        images=[dict(id=stem, file_name=f'{stem}.jpg', height=6, width=8) for stem in 'ab'],
        annotations=[dict(image_id=stem, file_name=f'{stem}.png', segments_info=SEGMENTS) for stem in 'ab'],
        categories=CATEGORIES)
    return CheckedSet(tmp_path, json.loads(json.dumps(content)))
