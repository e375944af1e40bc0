"""Panoptic quality as a metric of the runner, and the export of predictions in COCO's format."""
import logging
import os.path as osp
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump, load
from mmengine.logging import print_log

from remax_mm.panoptic_format import number_segments, write_segment_ids
from .annotation import require_annotation, thing_flags
from .panoptic_quality import check_num_classes, class_quality, count_segments, mean_quality
from .quality_tables import class_table, summary_table


@METRICS.register_module()
class PanopticQualityMetric(BaseMetric):
    """Compute PQ, SQ and RQ of panoptic maps in percent, without writing the predictions to files.

    Each data sample needs ``pred_panoptic_seg.sem_seg``, (1, H, W) at the size of the annotation with the
    values label + 1000 * instance and void ``K``, and an annotation: ``gt_annotation`` of ``LoadSegmentIds``,
    or ``seg_map_path`` and ``segments_info``. With the latter, each metric decodes the PNG again.

    The keys are those of mmdet's ``CocoPanopticMetric``: ``PQ``, ``SQ`` and ``RQ``, also with the suffixes
    ``_th`` and ``_st``. The keys of a group without segments, for example of stuff in a dataset of things,
    are left out.

    Args:
        classwise: Also return ``PQ/<class>``, ``SQ/<class>`` and ``RQ/<class>`` of each annotated or
            predicted class, and log them as a table.
        outfile_prefix: Write the predictions in COCO's submission format to ``<prefix>.json`` and the folder
            ``<prefix>``. Several machines must share this storage. COCO's server requires the prefix
            ``panoptic_<split>_<name>_results``.
        format_only: Only write the predictions. Use it for images without annotations.
        ann_file: Annotation file whose ``categories`` give the category id of each class name. Only used with
            ``outfile_prefix``.
        check_ids: Raise an error if the annotated PNG and ``segments_info`` do not have the same ids.
        backend_args: Arguments of the storage backend of ``ann_file`` and of the annotated PNGs.
        collect_device: ``'cpu'`` or ``'gpu'``, the device on which the counts of all ranks are gathered.
        prefix: Prefix of the keys, ``coco_panoptic`` if None.

    Raises:
        ValueError: ``format_only`` without ``outfile_prefix``, or ``outfile_prefix`` without ``ann_file``.
    """
    default_prefix = 'coco_panoptic'

    def __init__(self,
                 classwise: bool = False,
                 outfile_prefix: Optional[str] = None,
                 format_only: bool = False,
                 ann_file: Optional[str] = None,
                 check_ids: bool = True,
                 backend_args: Optional[dict] = None,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if format_only and outfile_prefix is None:
            raise ValueError('Expected `outfile_prefix` together with `format_only=True`, but got None')
        if outfile_prefix is not None and ann_file is None:
            raise ValueError(
                'Expected `ann_file` together with `outfile_prefix`: its categories give the ids '
                'that the exported predictions must carry')
        self.classwise = classwise
        self.outfile_prefix = outfile_prefix
        self.format_only = format_only
        self.ann_file = ann_file
        self.check_ids = check_ids
        self.backend_args = backend_args

    @property
    def classes(self) -> Sequence[str]:
        """Names of the K classes of the dataset."""
        return self.dataset_meta['classes']

    @property
    def is_thing(self) -> List[bool]:
        """For each of the K classes, whether it is a thing class."""
        return thing_flags(self.dataset_meta)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the segments of a batch. The ranks exchange only the small results, one for each image."""
        check_num_classes(len(self.classes))
        for sample in data_samples:
            prediction = sample['pred_panoptic_seg']['sem_seg'].squeeze(0).cpu().numpy()
            result: Dict[str, Any] = dict()
            if not self.format_only:
                result.update(self._count(sample, prediction))
            if self.outfile_prefix is not None:
                result.update(annotation=self._export(sample, prediction, self.outfile_prefix))
            self.results.append(result)

    def _count(self, sample: Mapping, prediction: np.ndarray) -> Dict[str, np.ndarray]:
        """Count the segments of one image; classes without segments are left out."""
        ids, segments = require_annotation(sample, self.is_thing, self.backend_args)
        try:
            counts = count_segments(prediction, ids.numpy(), segments, len(self.classes), self.check_ids)
        except ValueError as error:
            raise ValueError(f'Cannot evaluate {sample.get("img_path")} on {sample.get("seg_map_path")}: '
                             f'{error}') from error
        labels = np.flatnonzero(counts.any(axis=1))
        return dict(labels=labels, counts=counts[labels])

    def _export(self, sample: Mapping, prediction: np.ndarray, folder: str) -> Dict[str, Any]:
        """Write the PNG of one prediction and return its JSON entry, with labels instead of category ids."""
        file_name = f'{osp.splitext(osp.basename(sample["img_path"]))[0]}.png'
        ids, segments = number_segments(prediction, len(self.classes))
        write_segment_ids(osp.join(folder, file_name), ids)
        segments_info = [
            dict(id=segment['id'], category_id=segment['label'], area=segment['area'], bbox=segment['bbox'])
            for segment in segments
        ]
        return dict(image_id=sample['img_id'], file_name=file_name, segments_info=segments_info)

    def compute_metrics(self, results: Sequence[dict]) -> Dict[str, float]:
        """Compute the metrics of all images, gathered from all ranks."""
        if self.outfile_prefix is not None:
            self._write_submission([result['annotation'] for result in results])
        if self.format_only:
            return {}

        counts = np.zeros((len(self.classes), 4))
        for result in results:
            counts[result['labels']] += result['counts']
        means = mean_quality(counts, self.is_thing)
        if not means:
            print_log('There is no panoptic quality: neither annotations nor predictions have segments.',
                      'current', logging.WARNING)
        print_log(f'Panoptic quality of {len(results)} images:\n'
                  f'{summary_table(counts, self.is_thing)}', 'current')
        if self.classwise:
            print_log(f'Panoptic quality of the classes:\n{class_table(counts, self.classes)}', 'current')
            means.update(self._classwise(counts))
        return means

    def _classwise(self, counts: np.ndarray) -> Dict[str, float]:
        """Return PQ, SQ and RQ of each annotated or predicted class."""
        quality = class_quality(counts)
        return {
            f'{key.upper()}/{self.classes[label]}': 100 * float(values[label])
            for label in np.flatnonzero(~np.isnan(quality.pq)).tolist()
            for key, values in quality._asdict().items()
        }

    def _write_submission(self, annotations: List[dict]) -> None:
        """Write the JSON next to the folder of PNGs, with the category ids of ``ann_file``."""
        if len({annotation['file_name'] for annotation in annotations}) < len(annotations):
            raise ValueError('Expected image files with unique names, but some differ only in their folder, '
                             'and one exported PNG has overwritten the other')
        category_ids = {
            category['name']: category['id']
            for category in load(self.ann_file, backend_args=self.backend_args)['categories']
        }
        unknown = [name for name in self.classes if name not in category_ids]
        if unknown:
            raise ValueError(f'Expected all classes among the categories of {self.ann_file}, but it lacks '
                             f'{unknown}')
        for annotation in annotations:
            for segment in annotation['segments_info']:
                segment['category_id'] = category_ids[self.classes[segment['category_id']]]
        path = f'{self.outfile_prefix}.json'
        dump(dict(annotations=annotations), path)
        print_log(f'Wrote {len(annotations)} panoptic predictions to {path} and {self.outfile_prefix}/',
                  'current')
