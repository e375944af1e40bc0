"""The Cityscapes panoptic dataset, in the files that createPanopticImgs of cityscapesscripts writes."""
import re
from typing import Mapping

from mmdet.registry import DATASETS

from .panoptic_dataset import PanopticMapDataset

# <city>_<sequence>_<frame>; names of cities contain no underscore.
_IMAGE_ID = re.compile(r'([^_/]+)_\d{6}_\d{6}')


@DATASETS.register_module()
class CityscapesPanopticMapDataset(PanopticMapDataset):
    """Cityscapes with 8 thing and 11 stuff classes, things first.

    Reads ``cityscapes_panoptic_{split}[_trainId].json`` in the folder of the download::

        cityscapes
        ├── leftImg8bit/{train,val,test}/<city>/<id>_leftImg8bit.png
        └── gtFine
            ├── cityscapes_panoptic_{train,val}.json
            └── cityscapes_panoptic_{train,val}/<id>_gtFine_panoptic.png

    where ``<id>`` is ``<city>_<sequence>_<frame>``, which is also the ``img_id`` of the records. Category ids
    may be label ids or train ids, because categories are matched by name. The file names of photos in the
    JSON, ``<id>_gtFine_leftImg8bit.png``, do not exist; the id of an image gives the path of its photo
    (cityscapesScripts, preparation/createPanopticImgs.py).

    Arguments and records are those of :class:`PanopticMapDataset`.

    Raises:
        ValueError: an image id does not have the form above.
    """

    METAINFO = dict(
        classes=('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle', 'road',
                 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign',
                 'vegetation', 'terrain', 'sky'),
        thing_classes=('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle'),
        stuff_classes=('road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light',
                       'traffic sign', 'vegetation', 'terrain', 'sky'),
        palette=[(220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230),
                 (119, 11, 32), (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156),
                 (190, 153, 153), (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35),
                 (152, 251, 152), (70, 130, 180)])

    def photo_name(self, image: Mapping) -> str:
        """<city>/<id>_leftImg8bit.png."""
        return f'{self._city(image)}/{image["id"]}_leftImg8bit.png'

    def png_name(self, image: Mapping) -> str:
        """<id>_gtFine_panoptic.png."""
        self._city(image)
        return f'{image["id"]}_gtFine_panoptic.png'

    def _city(self, image: Mapping) -> str:
        match = _IMAGE_ID.fullmatch(str(image['id']))
        if match is None:
            raise ValueError(f'Expected Cityscapes image ids <city>_<6 digits>_<6 digits> in '
                             f'{self.ann_file}, but got {image["id"]!r}')
        return match[1]
