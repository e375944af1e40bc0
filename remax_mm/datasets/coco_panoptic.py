"""Panoptic data sets in COCO's format: one JSON, one folder of images, one folder of id PNGs."""
import logging
import time
from typing import Dict, Iterable, List, Optional, Sequence

from mmdet.datasets import CocoPanopticDataset
from mmdet.registry import DATASETS
from mmengine import fileio
from mmengine.fileio.backends import LocalBackend
from mmengine.logging import print_log


def map_categories(categories: Sequence[dict], thing_classes: Sequence[str], stuff_classes: Sequence[str],
                   ann_file: str) -> Dict[int, int]:
    """Map the category ids of a COCO panoptic JSON to labels by name: things first, then stuff.

    Args:
        categories: Entries with ``id``, ``name`` and ``isthing`` (0 or 1), in any order.
        thing_classes: Names of the labels 0, 1, ...
        stuff_classes: Names of the labels after those of the things.
        ann_file: File that the categories come from, for the messages.

    Returns:
        Category id -> label in [0, K).

    Raises:
        ValueError: a category has no ``isthing``, or one that contradicts the class lists, or the names of
            the categories and of the classes differ.
    """
    without = [category['name'] for category in categories if 'isthing' not in category]
    if without:
        raise ValueError(f'Expected `isthing` in every category of {ann_file}, but {_some(without)} lack it')

    classes = [*thing_classes, *stuff_classes]
    names = [category['name'] for category in categories]
    for what, given in (('classes of `metainfo`', classes), ('categories', names)):
        if len(set(given)) < len(given):
            double = {name for name in given if given.count(name) > 1}
            raise ValueError(f'Expected each name once in the {what} for {ann_file}, '
                             f'but {_some(double)} stand there more often')
    if set(classes) != set(names):
        raise ValueError(
            f'Expected the categories of {ann_file} to be the classes of `metainfo`, but the categories '
            f'lack {_some(set(classes) - set(names))} and have besides {_some(set(names) - set(classes))}')

    wrong = [c['name'] for c in categories if bool(c['isthing']) != (c['name'] in set(thing_classes))]
    if wrong:
        raise ValueError(f'Expected `isthing` in {ann_file} to agree with `thing_classes` and '
                         f'`stuff_classes` of `metainfo`, but it contradicts them for {_some(wrong)}')
    label_of_name = {name: label for label, name in enumerate(classes)}
    return {category['id']: label_of_name[category['name']] for category in categories}


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f' and {len(names) - 5} more' if len(names) > 5 else ''
    return (', '.join(map(repr, names[:5])) or 'none') + more


@DATASETS.register_module()
class CocoPanopticMapDataset(CocoPanopticDataset):
    """Any data set in COCO's panoptic format, with every segment kept.

    ``metainfo=dict(classes=..., thing_classes=..., stuff_classes=..., palette=...)`` names the classes of
    data other than COCO's; things stand first. Against mmdet's class, categories are matched by name and not
    by their order, small and crowd segments are kept, and the PNG's name is read from the JSON. For test
    images without ground truth leave ``seg`` out of ``data_prefix``.

    Each record holds ``img_path``, ``img_id``, ``height``, ``width``, ``seg_map_path`` (None without ``seg``)
    and ``segments_info``, a list of dicts: ``id``, ``category`` (label in [0, K)), ``is_thing``, ``iscrowd``.

    Args:
        filter_cfg (dict, optional): ``min_size`` (pixels of the shorter side) and ``filter_empty_gt`` (drop
            images whose every pixel is void; images with stuff alone stay). Used in training only.

    The other arguments are those of :class:`mmdet.datasets.CocoPanopticDataset`.

    Raises:
        FileNotFoundError: the annotation file, the image folder or the PNG folder is missing.
        ValueError: the class lists are not things first, or the JSON does not fit them.
    """

    def load_data_list(self) -> List[dict]:
        """Read the JSON into one record per image."""
        self._check_paths()
        self._check_metainfo()
        start = time.time()
        annotations = fileio.load(self.ann_file, file_format='json', backend_args=self.backend_args)
        for key in ('images', 'categories'):
            if key not in annotations:
                raise ValueError(f'Expected COCO panoptic annotations with `{key}` in {self.ann_file}, '
                                 f'but its keys are {sorted(annotations)}')

        self.cat2label = map_categories(annotations['categories'], self._metainfo['thing_classes'],
                                        self._metainfo['stuff_classes'], self.ann_file)
        self.cat_ids = sorted(self.cat2label, key=self.cat2label.get)
        of_image = {annotation['image_id']: annotation for annotation in annotations.get('annotations', ())}
        records = [
            self.parse_data_info(dict(raw_img_info=image, raw_ann_info=of_image.get(image['id'])))
            for image in annotations['images']
        ]
        print_log(
            f'Read {len(records)} images from {self.ann_file} in {time.time() - start:.1f} s',
            logger='current',
            level=logging.INFO)
        return records

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Turn an image of the JSON and its annotation (None: no segments) into a record."""
        image, annotation = raw_data_info['raw_img_info'], raw_data_info['raw_ann_info']
        annotation = annotation or dict(segments_info=[])
        seg_map_path: Optional[str] = None
        if self.data_prefix.get('seg'):
            png = annotation.get('file_name') or image['file_name'].rsplit('.', 1)[0] + self.seg_map_suffix
            seg_map_path = self._join(self.data_prefix['seg'], png)

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
                    iscrowd=bool(segment.get('iscrowd', False))))
        return dict(
            img_path=self._join(self.data_prefix['img'], image['file_name']),
            img_id=image['id'],
            height=image['height'],
            width=image['width'],
            seg_map_path=seg_map_path,
            segments_info=segments_info)

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

    def _check_paths(self) -> None:
        if not self.test_mode and not self.data_prefix.get('seg'):
            raise ValueError('Expected `data_prefix` to name the folder of panoptic PNGs as `seg` for '
                             f'training on {self.ann_file}, but got {self.data_prefix}')
        wanted = [('annotation file', self.ann_file, fileio.isfile),
                  ('image folder', self.data_prefix['img'], fileio.isdir)]
        if self.data_prefix.get('seg'):
            wanted.append(('folder of panoptic PNGs', self.data_prefix['seg'], fileio.isdir))
        for what, path, exists in wanted:
            # Object stores have no folders, and would be asked for the file a second time.
            backend = fileio.get_file_backend(path, backend_args=self.backend_args)
            if isinstance(backend, LocalBackend) and not exists(path, backend_args=self.backend_args):
                raise FileNotFoundError(f'Expected the {what} of {type(self).__name__} at {path}, but there '
                                        f'is none (data_root={self.data_root!r})')

    def _check_metainfo(self) -> None:
        things, stuff = self._metainfo['thing_classes'], self._metainfo['stuff_classes']
        if list(self._metainfo['classes']) != [*things, *stuff]:
            raise ValueError(
                'Expected `classes` of `metainfo` to be `thing_classes` followed by `stuff_classes`, but got '
                f'{len(self._metainfo["classes"])} classes for {len(things)} things and {len(stuff)} stuff '
                f'classes, or another order, with {self.ann_file}')
