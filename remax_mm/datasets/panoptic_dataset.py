"""Panoptic data in COCO's format: one JSON, one folder of images, one folder of id PNGs."""
import logging
import time
from copy import deepcopy
from typing import Any, Callable, List, Mapping, Optional, Sequence

from mmdet.datasets import CocoPanopticDataset
from mmdet.registry import DATASETS
from mmengine import fileio
from mmengine.fileio.backends import LocalBackend
from mmengine.logging import print_log

from remax_mm.panoptic_format import BrokenFileError, check_unique, list_some, map_categories, order_classes

_CLASS_LISTS = ('classes', 'thing_classes', 'stuff_classes')


@DATASETS.register_module()
class PanopticMapDataset(CocoPanopticDataset):
    """Any dataset in COCO's panoptic format, with every segment kept.

    The classes are those of the annotation file: things first, by category id inside each group, so that the
    files of training and validation agree. How many kinds of things and stuff there are, which a model's
    config needs, stands in the log. ``metainfo=dict(classes=..., thing_classes=..., stuff_classes=...,
    palette=...)`` puts them in another order, things first again; the file must then have these classes.

    Against mmdet's class, categories are matched by name and not by their order, small and crowd segments
    are kept, and the PNG's name is read from the JSON. For test images without ground truth leave ``seg`` out
    of ``data_prefix``.

    Each record holds ``img_path``, ``img_id`` (as in the JSON, a number or a string), ``height``, ``width``,
    ``seg_map_path`` (None without ``seg``) and ``segments_info``, a list of dicts: ``id``, ``category``
    (label in [0, K)), ``is_thing``, ``iscrowd``, ``area`` (in pixels, None where unknown).

    Args:
        filter_cfg (dict, optional): ``min_size`` (pixels of the shorter side) and ``filter_empty_gt`` (drop
            images whose every pixel is void; images with stuff alone stay). Used in training only.
        skip_broken: whether training takes another image in place of one that cannot be decoded, or whose PNG
            cannot, and says so each time. Testing never does.

    The other arguments are those of :class:`mmdet.datasets.CocoPanopticDataset`.

    Raises:
        FileNotFoundError: the annotation file, the image folder or the PNG folder is missing.
        ValueError: the class lists are not things first, or the JSON does not fit them, or an image stands
            in it twice.
    """

    METAINFO: dict = dict()

    def __init__(self, *args: Any, skip_broken: bool = False, **kwargs: Any) -> None:
        self.skip_broken = skip_broken
        self.num_skipped = 0
        super().__init__(*args, **kwargs)

    @property
    def metainfo(self) -> dict:
        """Classes and palette, read from the annotation file where nothing else names them."""
        if not self.names_classes:
            self._take_classes(self._load_annotations()['categories'])
        return deepcopy(self._metainfo)

    def load_data_list(self) -> List[dict]:
        """Read the JSON into one record per image."""
        self._check_folders()
        start = time.time()
        annotations = self._load_annotations()
        if not self.names_classes:
            self._take_classes(annotations['categories'])
        self._check_metainfo()

        things, stuff = self._metainfo['thing_classes'], self._metainfo['stuff_classes']
        self.cat2label = map_categories(annotations['categories'], things, stuff, self.ann_file)
        self.cat_ids = sorted(self.cat2label, key=self.cat2label.get)
        of_image = {annotation['image_id']: annotation for annotation in annotations['annotations']}
        try:
            records = [
                self.parse_data_info(dict(raw_img_info=image, raw_ann_info=of_image.get(image['id'])))
                for image in annotations['images']
            ]
        except KeyError as error:
            raise ValueError(f'Expected {error} in every entry of its kind in {self.ann_file}, '
                             'but one lacks it') from error
        print_log(
            f'Read {len(records)} images with {len(things)} thing and {len(stuff)} stuff classes from '
            f'{self.ann_file} in {time.time() - start:.1f} s',
            logger='current',
            level=logging.INFO)
        return records

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Turn an image of the JSON and its annotation (None: no segments) into a record."""
        image, annotation = raw_data_info['raw_img_info'], raw_data_info['raw_ann_info']
        annotation = annotation or dict(segments_info=[])
        seg_map_path: Optional[str] = None
        if self.data_prefix.get('seg'):
            seg_map_path = self._join(self.data_prefix['seg'],
                                      annotation.get('file_name') or self.png_name(image))

        num_things = len(self._metainfo['thing_classes'])
        segments_info = []
        for segment in annotation['segments_info']:
            label = self.cat2label.get(segment['category_id'])
            if label is None:
                raise ValueError(
                    f'Expected the category ids of {self.ann_file} to be among its `categories`, but '
                    f'{image["file_name"]} has a segment of category {segment["category_id"]}')
            segments_info.append(
                dict(
                    id=segment['id'],
                    category=label,
                    is_thing=label < num_things,
                    iscrowd=bool(segment.get('iscrowd', False)),
                    area=segment.get('area')))
        return dict(
            img_path=self._join(self.data_prefix['img'], self.photo_name(image)),
            img_id=image['id'],
            height=image['height'],
            width=image['width'],
            seg_map_path=seg_map_path,
            segments_info=segments_info)

    def photo_name(self, image: Mapping) -> str:
        """File of an image of the JSON, below ``data_prefix['img']``."""
        return image['file_name']

    def png_name(self, image: Mapping) -> str:
        """PNG of an image whose annotation names none, below ``data_prefix['seg']``."""
        return image['file_name'].rsplit('.', 1)[0] + self.seg_map_suffix

    def prepare_data(self, idx: int) -> Optional[dict]:
        """Send a record through the pipeline; None, for which another one is drawn, if a file is broken and
        ``skip_broken``."""
        try:
            record = self.get_data_info(idx)
            if not self.test_mode:
                record['dataset'] = self  # where PanopticCopyPaste finds a partner
            return self.pipeline(record)
        except BrokenFileError as error:
            if not self.skip_broken or self.test_mode:
                raise
            self.num_skipped += 1
            print_log(
                f'Took another image, number {self.num_skipped} of this process: {error}',
                logger='current',
                level=logging.WARNING)
            return None

    def filter_data(self) -> List[dict]:
        """Drop the images that ``filter_cfg`` excludes; nothing at test time."""
        filter_cfg = dict(self.filter_cfg or {})
        min_size = filter_cfg.pop('min_size', 0)
        filter_empty_gt = filter_cfg.pop('filter_empty_gt', False)
        if filter_cfg:
            raise ValueError('Expected `min_size` and `filter_empty_gt` in `filter_cfg`, '
                             f'but got {sorted(filter_cfg)}')
        if self.test_mode:
            return self.data_list
        return [
            record for record in self.data_list if min(record['height'], record['width']) >= min_size and (
                not filter_empty_gt or not all(segment['iscrowd'] for segment in record['segments_info']))
        ]

    def get_cat_ids(self, idx: int) -> List[int]:
        """Labels of the image's segments, for ``ClassBalancedDataset``."""
        return [segment['category'] for segment in self.get_data_info(idx)['segments_info']]

    def _join(self, folder: str, name: str) -> str:
        return fileio.join_path(folder, name, backend_args=self.backend_args)

    def _load_annotations(self) -> dict:
        self._check_exists('annotation file', self.ann_file, fileio.isfile)
        annotations = fileio.load(self.ann_file, file_format='json', backend_args=self.backend_args)
        for key in ('images', 'categories'):
            if key not in annotations:
                raise ValueError(f'Expected COCO panoptic annotations with `{key}` in {self.ann_file}, '
                                 f'but its keys are {sorted(annotations)}')
        annotations.setdefault('annotations', [])
        image_ids = [image['id'] for image in annotations['images']]
        annotated_ids = [annotation['image_id'] for annotation in annotations['annotations']]
        check_unique('image', '`images`', image_ids, self.ann_file)
        check_unique('image', '`annotations`', annotated_ids, self.ann_file)
        without_image = set(annotated_ids) - set(image_ids)
        if without_image:
            print_log(
                f'{self.ann_file} has annotations of images that it does not list, which are left out: '
                f'{list_some(without_image)}',
                logger='current',
                level=logging.WARNING)
        return annotations

    def _check_folders(self) -> None:
        if not self.test_mode and not self.data_prefix.get('seg'):
            raise ValueError('Expected `data_prefix` to name the folder of panoptic PNGs as `seg` for '
                             f'training on {self.ann_file}, but got {self.data_prefix}')
        self._check_exists('image folder', self.data_prefix['img'], fileio.isdir)
        if self.data_prefix.get('seg'):
            self._check_exists('folder of panoptic PNGs', self.data_prefix['seg'], fileio.isdir)

    def _check_exists(self, what: str, path: str, exists: Callable[..., bool]) -> None:
        # Object stores have no folders, and would be asked for the file a second time.
        backend = fileio.get_file_backend(path, backend_args=self.backend_args)
        if isinstance(backend, LocalBackend) and not exists(path, backend_args=self.backend_args):
            raise FileNotFoundError(f'Expected the {what} of {type(self).__name__} at {path}, but there '
                                    f'is none (data_root={self.data_root!r})')

    @property
    def names_classes(self) -> bool:
        """Whether the classes are known: from METAINFO, the config or an annotation file that was read."""
        named = [key for key in _CLASS_LISTS if key in self._metainfo]
        if 0 < len(named) < len(_CLASS_LISTS):
            raise ValueError(
                f'Expected `metainfo` for {self.ann_file} to name all of {", ".join(_CLASS_LISTS)}, '
                f'or none of them, but got {", ".join(named)} alone')
        return bool(named)

    def _take_classes(self, categories: Sequence[dict]) -> None:
        self._metainfo = {**order_classes(categories, self.ann_file), **self._metainfo}

    def _check_metainfo(self) -> None:
        things, stuff = self._metainfo['thing_classes'], self._metainfo['stuff_classes']
        if list(self._metainfo['classes']) != [*things, *stuff]:
            raise ValueError(
                'Expected `classes` of `metainfo` to be `thing_classes` followed by `stuff_classes`, but got '
                f'{len(self._metainfo["classes"])} classes for {len(things)} things and {len(stuff)} stuff '
                f'classes, or another order, with {self.ann_file}')
