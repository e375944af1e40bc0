"""Datasets in the COCO panoptic format: a JSON, a folder of photos and a folder of PNGs with segment ids."""
import logging
import time
from copy import deepcopy
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from mmdet.datasets import CocoPanopticDataset
from mmdet.registry import DATASETS
from mmengine import fileio
from mmengine.fileio.backends import LocalBackend
from mmengine.logging import print_log
from mmengine.utils import is_abs

from remax_mm.panoptic_format import (BrokenFileError, ImageFile, LoadedFile, check_entries, join_path,
                                      label_segments, list_some, map_categories, order_classes, raise_errors,
                                      read_annotations, without_garbage_collection)

_CLASS_LISTS = ('classes', 'thing_classes', 'stuff_classes')


@DATASETS.register_module()
class PanopticMapDataset(CocoPanopticDataset):
    """Any dataset in the COCO panoptic format, with all of its segments.

    The classes are those of the annotation file: things first, by category id within things and within
    stuff, so that training and validation files agree. The numbers of thing and stuff classes, which the
    config of a model needs, are logged. The colors are those of the file, or else those of the dataset of
    this package with the same class names. ``metainfo=dict(classes=..., thing_classes=..., stuff_classes=...,
    palette=...)`` sets another order, again things first; the file must then have exactly these classes.

    Unlike mmdet's class, this one matches categories by name and not by position, keeps small and crowd
    segments, and reads the name of the PNG from the JSON. For test images without ground truth, leave ``seg``
    out of ``data_prefix``.

    A record has ``img_path``, ``img_id`` (as in the JSON, a number or a string), ``height``, ``width``,
    ``seg_map_path`` (None without ``seg``) and ``segments_info``, a list of dicts with ``id``, ``category``
    (label in [0, K)), ``is_thing``, ``iscrowd`` and ``area`` (in pixels, None if unknown).

    Args:
        filter_cfg (dict, optional): ``min_size`` (pixels of the shorter side) and ``filter_empty_gt`` (remove
            images without any segment except crowd; images with only stuff stay). Used in training only.
        skip_broken: Whether training replaces an image whose photo or PNG cannot be decoded by another image,
            and logs it. Testing never does.

    The other arguments are those of :class:`mmdet.datasets.CocoPanopticDataset`.

    Raises:
        FileNotFoundError: the annotation file, the image folder or the PNG folder does not exist.
        ValueError: the class lists are not things first, the JSON does not agree with them, violates the
            schema (:mod:`remax_mm.panoptic_format.annotation_schema`), repeats an id, or, with PNGs, lacks an
            annotation of an image.
    """

    METAINFO: dict = dict()
    _metainfo: Dict[str, Any]  # these two are set by the base class
    ann_file: str

    def __init__(self, *args: Any, skip_broken: bool = False, **kwargs: Any) -> None:
        self.skip_broken = skip_broken
        self.num_skipped = 0
        super().__init__(*args, **kwargs)

    @property
    def metainfo(self) -> dict:
        """Classes and palette; read from the annotation file unless the class or the config defines them."""
        if not self.names_classes:
            self._set_classes(self.read_content()['categories'])
        return deepcopy(self._metainfo)

    def load_data_list(self) -> List[dict]:
        """Read the JSON into one record per image."""
        self._check_folders()
        start = time.time()
        content = self.read_content()
        if not self.names_classes:
            self._set_classes(content['categories'])
        self._check_metainfo()

        things, stuff = self._metainfo['thing_classes'], self._metainfo['stuff_classes']
        self.cat2label = map_categories(content['categories'], things, stuff, self.ann_file)
        self.cat_ids = sorted(self.cat2label, key=lambda category_id: self.cat2label[category_id])
        annotations = {annotation['image_id']: annotation for annotation in content.pop('annotations', ())}
        self._warn_of_unlisted(content['images'], annotations)

        # Each record frees the entries that it is made of.
        records = []
        images = content['images'][::-1]
        del content
        with without_garbage_collection():
            while images:
                image = images.pop()
                annotation = annotations.pop(image['id'], None)
                records.append(self.parse_data_info(dict(raw_img_info=image, raw_ann_info=annotation)))
        print_log(
            f'Read {len(records)} images with {len(things)} thing and {len(stuff)} stuff classes from '
            f'{self.ann_file} in {time.time() - start:.1f} s',
            logger='current',
            level=logging.INFO)
        return records

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Make the record of an image from its entries in the JSON; the annotation may be None."""
        image, annotation = raw_data_info['raw_img_info'], raw_data_info['raw_ann_info']
        annotation = annotation or dict(segments_info=[])
        seg_map_path: Optional[str] = None
        if self.data_prefix.get('seg'):
            seg_map_path = self._join(self.data_prefix['seg'],
                                      annotation.get('file_name') or self.png_name(image))

        return dict(
            img_path=self._join(self.data_prefix['img'], self.photo_name(image)),
            img_id=image['id'],
            height=image['height'],
            width=image['width'],
            seg_map_path=seg_map_path,
            segments_info=label_segments(annotation, self.cat2label, len(self._metainfo['thing_classes'])))

    def photo_name(self, image: Mapping) -> str:
        """Photo of an entry of ``images``, relative to ``data_prefix['img']``."""
        return image['file_name']

    def png_name(self, image: Mapping) -> str:
        """PNG of an entry of ``images`` whose annotation has no ``file_name``, relative to
        ``data_prefix['seg']``."""
        return image['file_name'].rsplit('.', 1)[0] + self.seg_map_suffix

    def prepare_data(self, idx: int) -> Optional[dict]:
        """Run the pipeline on a record.

        Returns:
            Output of the pipeline, or None if a file is broken and ``skip_broken`` is set; the base class
            then draws another record.

        Raises:
            RuntimeError: a transform failed; the message names the photo.
        """
        record = self.get_data_info(idx)
        if not self.test_mode:
            record['dataset'] = self  # PanopticCopyPaste takes the second image from it
        try:
            return self.pipeline(record)
        except BrokenFileError as error:
            if not self.skip_broken or self.test_mode:
                raise
            self.num_skipped += 1
            print_log(
                f'Skipped broken image number {self.num_skipped} of this process: {error}',
                logger='current',
                level=logging.WARNING)
            return None
        except (OSError, ValueError):  # these name their file
            raise
        except Exception as error:  # such as cv2.error of a resize to a width of 0
            raise RuntimeError(
                f'Cannot prepare {record["img_path"]}: {type(error).__name__}: {error}') from error

    def filter_data(self) -> List[dict]:
        """Remove the images that ``filter_cfg`` excludes; none in testing."""
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
        """Labels of the segments of an image, for ``ClassBalancedDataset``."""
        return [segment['category'] for segment in self.get_data_info(idx)['segments_info']]

    def _join(self, folder: str, name: str) -> str:
        return join_path(folder, name, self.backend_args)

    def _join_prefix(self) -> None:
        # mmengine's method does not know `backend_args`, and joins no path of a backend without folders.
        for key, prefix in self.data_prefix.items():
            if not isinstance(prefix, str):
                raise TypeError(f'Expected `data_prefix` to have strings, but got {prefix!r} for {key!r}')
            self.data_prefix[key] = self._join_root(prefix)
        if self.ann_file:
            self.ann_file = self._join_root(self.ann_file)

    def _join_root(self, path: str) -> str:
        return path if is_abs(path) or not self.data_root else self._join(self.data_root, path)

    def read_content(self) -> Dict[str, Any]:
        """Read the annotation file.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file has an error.
        """
        self._check_exists('annotation file', self.ann_file, fileio.exists)
        has_pngs = bool(self.data_prefix.get('seg'))
        schema = LoadedFile if has_pngs and not self.test_mode else ImageFile
        found = read_annotations(self.ann_file, schema, self.backend_args)
        is_annotated = has_pngs and 'annotations' in found.content
        findings = [*found.findings, *check_entries(found, self.ann_file, all_annotated=is_annotated)]
        raise_errors(findings, self.ann_file)
        return found.content

    def _warn_of_unlisted(self, images: Sequence[Mapping], annotations: Mapping[Any, Mapping]) -> None:
        unlisted = set(annotations) - {image['id'] for image in images}
        if unlisted:
            print_log(
                f'Ignored the annotations of images that are not in `images` of {self.ann_file}: '
                f'{list_some(unlisted)}',
                logger='current',
                level=logging.WARNING)

    def _check_folders(self) -> None:
        if not self.test_mode and not self.data_prefix.get('seg'):
            raise ValueError('Expected the folder of panoptic PNGs as `seg` of `data_prefix` for training on '
                             f'{self.ann_file}, but got {self.data_prefix}')
        self._check_exists('image folder', self.data_prefix['img'], fileio.isdir)
        if self.data_prefix.get('seg'):
            self._check_exists('folder of panoptic PNGs', self.data_prefix['seg'], fileio.isdir)

    def _check_exists(self, what: str, path: str, exists: Callable[..., bool]) -> None:
        # Object stores have no folders, and a check of the file would be a second request.
        backend = fileio.get_file_backend(path, backend_args=self.backend_args)
        if isinstance(backend, LocalBackend) and not exists(path, backend_args=self.backend_args):
            raise FileNotFoundError(f'Expected the {what} of {type(self).__name__} at {path}, but there '
                                    f'is none (data_root={self.data_root!r})')

    @property
    def names_classes(self) -> bool:
        """Whether the classes are known, from METAINFO, the config or an annotation file read before.

        Raises:
            ValueError: only some of the class lists are given.
        """
        named = [key for key in _CLASS_LISTS if key in self._metainfo]
        if 0 < len(named) < len(_CLASS_LISTS):
            raise ValueError(f'Expected all of {", ".join(_CLASS_LISTS)} in `metainfo` for {self.ann_file}, '
                             f'or none of them, but got only {", ".join(named)}')
        return bool(named)

    def _set_classes(self, categories: Sequence[dict]) -> None:
        metainfo = order_classes(categories)
        if 'palette' not in metainfo:
            metainfo.update(_known_palette(metainfo['classes']))
        self._metainfo = {**metainfo, **self._metainfo}

    def _check_metainfo(self) -> None:
        things, stuff = self._metainfo['thing_classes'], self._metainfo['stuff_classes']
        if list(self._metainfo['classes']) != [*things, *stuff]:
            raise ValueError(
                'Expected `classes` of `metainfo` to be `thing_classes` followed by `stuff_classes`, but got '
                f'{len(self._metainfo["classes"])} classes for {len(things)} things and {len(stuff)} stuff '
                f'classes, or another order, for {self.ann_file}')


def _known_palette(classes: Sequence[str]) -> Dict[str, List[tuple]]:
    """Colors of the dataset of this package with the same class names, so that all tools use the same."""
    for dataset in PanopticMapDataset.__subclasses__():
        color_of = dict(zip(dataset.METAINFO.get('classes', ()), dataset.METAINFO.get('palette', ())))
        if set(color_of) == set(classes):
            return dict(palette=[color_of[name] for name in classes])
    return {}
