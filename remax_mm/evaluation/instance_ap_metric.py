"""COCO's average precision of the instances of a panoptic model, computed by mmdet's metric."""
import logging
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

import numpy as np
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import dump, load
from mmengine.logging import print_log
from pycocotools import mask as mask_util

from remax_mm.panoptic_format import PanopticAnnotation
from .annotation import require_annotation, thing_flags


def annotated_instances(annotation: PanopticAnnotation, is_thing: Sequence[bool]) -> List[Dict[str, Any]]:
    """Return the annotated things of an image in the form that mmdet's metric takes.

    Args:
        annotation: The segments of the image, things and stuff.
        is_thing: (K,), whether each class is a thing class.

    Returns:
        ``bbox_label``, ``mask`` (run lengths), ``bbox`` (x1, y1, x2, y2) and ``ignore_flag`` (1 for a crowd
        region) of each thing.
    """
    ids = np.asfortranarray(annotation.ids.numpy())  # run lengths go along the columns
    instances = []
    for segment in annotation.segments:
        if is_thing[segment['category']]:
            mask = mask_util.encode((ids == segment['id']).view(np.uint8))
            x, y, width, height = mask_util.toBbox(mask).tolist()
            instances.append(
                dict(
                    bbox=[x, y, x + width, y + height],
                    bbox_label=segment['category'],
                    ignore_flag=int(segment['iscrowd']),
                    mask=mask))
    return instances


@METRICS.register_module()
class PanopticInstanceAPMetric(CocoMetric):
    """Apply mmdet's ``CocoMetric`` to the instances of a panoptic dataset.

    Each data sample needs ``pred_instances`` (``test_cfg.instance_on=True``) and ``ori_shape``; without
    ``ann_file`` it also needs an annotation as for :class:`PanopticQualityMetric`. The labels are those of
    the panoptic dataset.

    Without ``ann_file``, the annotated things of the panoptic PNGs are the ground truth. Crowd regions have
    the same effect as in COCO: a detection is ignored if the fraction of its pixels in a crowd region reaches
    the IoU threshold, and a crowd region without detections is no error. Unlabeled pixels have no such
    effect: detections there are false positives.

    Args:
        ann_file: Instance annotations, such as COCO's ``instances_val2017.json``. Categories are matched by
            name, and only the tested images are evaluated.
        metric: ``'segm'``, ``'bbox'`` or both.
        kwargs: The other arguments of :class:`mmdet.evaluation.CocoMetric`. With ``classwise=True`` the AP of
            each class is logged as a table and returned as ``<class>_precision``.

    Raises:
        ValueError: ``ann_file`` lacks a class or an image, a data sample lacks the prediction or the
            annotation, or a mask does not have the size of its image.
    """
    _coco_api: Any  # pycocotools.coco.COCO, or None until the ground truth is known; pycocotools has no types

    def __init__(self,
                 ann_file: Optional[str] = None,
                 metric: Union[str, List[str]] = 'segm',
                 **kwargs: Any) -> None:
        super().__init__(ann_file=ann_file, metric=metric, **kwargs)
        self.ann_file = ann_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Encode the predicted and the annotated masks of a batch as run lengths."""
        super().process(data_batch, [self._adapt(sample) for sample in data_samples])

    def _adapt(self, sample: Mapping) -> Dict[str, Any]:
        """Check a data sample and return it in the form that mmdet's metric takes."""
        if 'pred_instances' not in sample:
            raise ValueError(
                f'Expected `pred_instances` of {sample.get("img_path")}, but there are none: set '
                '`test_cfg.instance_on=True`')
        predicted, size = dict(sample['pred_instances']), tuple(sample['ori_shape'][:2])
        if tuple(predicted['masks'].shape[-2:]) != size:
            raise ValueError(f'Expected masks of the size {size} of {sample.get("img_path")}, but got '
                             f'{tuple(predicted["masks"].shape[-2:])}')
        adapted = dict(img_id=sample['img_id'], ori_shape=size)
        if self.ann_file is None:
            is_thing = thing_flags(self.dataset_meta)
            annotation = require_annotation(sample, is_thing, self.backend_args)
            if tuple(annotation.ids.shape) != size:
                raise ValueError(
                    f'Expected {sample.get("seg_map_path")} to have the size {size} of its image, '
                    f'but got {tuple(annotation.ids.shape)}')
            adapted['instances'] = annotated_instances(annotation, is_thing)

        # To mmdet, a label is an index into the sorted category ids.
        index = torch.as_tensor(np.argsort(np.argsort(self._category_ids())))
        predicted['labels'] = index[predicted['labels'].cpu()]
        return dict(adapted, pred_instances=predicted)

    def _category_ids(self) -> List[int]:
        """Return the category id of each thing class, in the order of the labels."""
        is_thing = thing_flags(self.dataset_meta)
        things = [label for label, thing in enumerate(is_thing) if thing]
        if things != list(range(len(things))):
            raise ValueError(f'Expected the thing classes first, but got {self.dataset_meta["classes"]}')
        if self.ann_file is None:
            return things
        id_of_name = {category['name']: category['id'] for category in self._coco_api.cats.values()}
        names = [self.dataset_meta['classes'][label] for label in things]
        unknown = [name for name in names if name not in id_of_name]
        if unknown:
            raise ValueError(f'Expected all thing classes among the categories of {self.ann_file}, but it '
                             f'lacks {unknown}')
        return [id_of_name[name] for name in names]

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """Compute the AP of all images, gathered from all ranks; empty for a dataset without things."""
        self.cat_ids = sorted(self._category_ids())
        self.img_ids = [truth['img_id'] for truth, _ in results]
        if not self.cat_ids:
            print_log('There is no average precision: the dataset has no thing classes.', 'current',
                      logging.WARNING)
            return {}
        if self.ann_file is not None:
            unknown = sorted(set(self.img_ids) - set(self._coco_api.imgs))
            if unknown:
                raise ValueError(
                    f'Expected the tested images in {self.ann_file}, but it lacks {len(unknown)} '
                    f'of them, such as {unknown[:5]}')
        metrics = super().compute_metrics(results)
        if self.ann_file is None:
            self._coco_api = None  # built by mmdet from the annotated masks of this evaluation
        return metrics

    def gt_to_coco_json(self, gt_dicts: Sequence[dict], outfile_prefix: str) -> str:
        """Write the ground truth with the areas of its masks; mmdet writes the areas of the boxes.

        Each category is its own supercategory, which mmdet's ``coco_error_analysis.py`` needs.
        """
        path = super().gt_to_coco_json(gt_dicts, outfile_prefix)
        content = load(path)
        for annotation in content.setdefault('annotations', []):
            annotation['area'] = float(mask_util.area(annotation['segmentation']))
        for category in content['categories']:
            category['supercategory'] = category['name']
        dump(content, path)
        return path
