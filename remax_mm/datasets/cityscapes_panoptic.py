"""Cityscapes' panoptic ground truth as createPanopticImgs of cityscapesscripts writes it."""
import re

from mmdet.registry import DATASETS

from .coco_panoptic import CocoPanopticMapDataset

# <city>_<sequence>_<frame>; no name of a city holds an underscore.
_IMAGE_ID = re.compile(r'([^_/]+)_\d{6}_\d{6}')


@DATASETS.register_module()
class CityscapesPanopticDataset(CocoPanopticMapDataset):
    """Cityscapes with 8 kinds of things and 11 kinds of stuff, things first.

    Reads ``cityscapes_panoptic_{split}[_trainId].json`` beside the folders of the download::

        cityscapes
        ├── leftImg8bit/{train,val,test}/<city>/<id>_leftImg8bit.png
        └── gtFine
            ├── cityscapes_panoptic_{train,val}.json
            └── cityscapes_panoptic_{train,val}/<id>_gtFine_panoptic.png

    where ``<id>`` is ``<city>_<sequence>_<frame>`` and the ``img_id`` of the records. Categories may have
    label ids or train ids: they are matched by name. The JSON names the photos ``<id>_gtFine_leftImg8bit.png``,
    which exist nowhere, so that the photo is found by the id (cityscapesScripts,
    preparation/createPanopticImgs.py).

    Arguments and records are those of :class:`CocoPanopticMapDataset`.

    Raises:
        ValueError: the id of an image is none of Cityscapes.
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

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Turn an image of the JSON and its annotation into a record; the photo is found by the id."""
        image = raw_data_info['raw_img_info']
        match = _IMAGE_ID.fullmatch(str(image['id']))
        if match is None:
            raise ValueError(f'Expected image ids <city>_<6 digits>_<6 digits> of Cityscapes in '
                             f'{self.ann_file}, but got {image["id"]!r}')
        photo = f'{match[1]}/{image["id"]}_leftImg8bit.png'
        return super().parse_data_info(dict(raw_data_info, raw_img_info=dict(image, file_name=photo)))
