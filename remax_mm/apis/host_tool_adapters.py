"""Changes of MMDetection's analysis tools, which expect boxes and its own loaders, for panoptic datasets.

An adapter gets the module of a tool before its ``main`` runs. Configs with MMDetection's own datasets behave
as before. :data:`HINTS` say what a tool needs that its own error does not say.
"""
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import mmcv
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from remax_mm.evaluation.annotation import thing_flags
from remax_mm.evaluation.instance_ap_metric import annotated_instances
from remax_mm.panoptic_format import get_annotation
from .run_config import type_name

HINTS = {
    'mmdet/analysis_tools/analyze_logs.py':
    'It expects epochs: of a log that counts iterations it draws the losses, but no metrics of the '
    'validation.',
    'mmdet/analysis_tools/analyze_results.py':
    'It needs the predictions that mmdet/test.py writes with --out.',
    'mmdet/analysis_tools/benchmark.py':
    '--task inference needs a GPU; dataloader and dataset run without one.',
    'mmdet/analysis_tools/coco_error_analysis.py':
    'It needs predicted and annotated instances in the format of COCO, which PanopticInstanceAPMetric writes '
    'with `outfile_prefix`.',
    'mmdet/analysis_tools/confusion_matrix.py':
    'It compares boxes of things. The predictions of a panoptic model have boxes with --cfg-options '
    'model.test_cfg.instance_on=True of mmdet/test.py.',
    'mmdet/analysis_tools/fuse_results.py':
    'It fuses boxes, no panoptic maps, and does not run in mmdet 3.3.0: it reads the argument `models_name`, '
    'which it does not define, and takes (x, y, width, height) of COCO for corners.',
}


def adapt_analyze_results(tool: Any) -> None:
    """Take any loading steps; draw panoptic results as input, ground truth and prediction.

    MMDetection accepts two classes of loaders, and fails to draw panoptic results of any dataset.
    """
    tool.get_loading_pipeline = keep_loading_steps
    draw = tool.ResultVisualizer._save_image_gts_results

    def draw_results(self: Any,
                     dataset: Any,
                     results: Sequence[dict],
                     performances: Sequence[Tuple[int, float]],
                     out_dir: Optional[str] = None,
                     task: str = 'det') -> None:
        if task != 'seg':
            draw(self, dataset, results, performances, out_dir, task)
            return
        for index, quality in performances:
            result = results[index]
            image_path = Path(result['img_path'])
            draw_panoptic_result(
                result, dataset.metainfo,
                Path(str(out_dir)) / f'{image_path.stem}_{round(quality, 3)}{image_path.suffix}')

    tool.ResultVisualizer._save_image_gts_results = draw_results


def keep_loading_steps(pipeline: Sequence[dict]) -> List[dict]:
    """The steps of a pipeline that load the image and its annotation."""
    return [step for step in pipeline if type_name(step).startswith('Load')]


def draw_panoptic_result(result: dict, metainfo: dict, out_file: Path) -> None:
    """Draw a prediction that MMDetection's test script saved with ``--out``.

    Args:
        result: ``img_path``, ``pred_panoptic_seg`` and, for the ground truth, an annotation.
        metainfo: Classes and palette of the dataset.
        out_file: Picture to write.
    """
    visualizer = VISUALIZERS.build(dict(type='PanopticVisualizer', name='analyze_results', alpha=0.6))
    visualizer.dataset_meta = metainfo
    sample = DetDataSample(metainfo=dict(img_path=result['img_path'], gt_annotation=get_annotation(result)))
    sample.pred_panoptic_seg = PixelData(sem_seg=result['pred_panoptic_seg']['sem_seg'])
    image = mmcv.imread(result['img_path'], channel_order='rgb')
    visualizer.add_datasample(out_file.stem, image, sample, out_file=str(out_file))


def adapt_browse_dataset(tool: Any) -> None:
    """Let panoptic samples have no boxes; the visualizer of the config draws their segments."""

    def add_instances(dataset: Any) -> None:
        prepare_data = dataset.prepare_data

        def prepare(index: int) -> Optional[dict]:
            item = prepare_data(index)
            if item is not None and 'gt_instances' not in item['data_samples']:
                item['data_samples'].gt_instances = InstanceData()
            return item

        dataset.prepare_data = prepare

    _adapt_datasets(tool, add_instances)


def adapt_confusion_matrix(tool: Any) -> None:
    """Compute the annotated boxes of things from the panoptic PNGs."""

    def add_boxes(dataset: Any) -> None:
        get_data_info = dataset.get_data_info
        is_thing = thing_flags(dataset.metainfo) if 'thing_classes' in dataset.metainfo else []

        def get_info(index: int) -> dict:
            record = get_data_info(index)
            if 'instances' not in record:
                annotation = get_annotation(record, dataset.backend_args)
                if annotation is None:
                    raise ValueError(f'Expected an annotation of {record["img_path"]}, but it has none')
                record['instances'] = [
                    instance for instance in annotated_instances(annotation, is_thing)
                    if not instance['ignore_flag']
                ]
            return record

        dataset.get_data_info = get_info

    _adapt_datasets(tool, add_boxes)


def _adapt_datasets(tool: Any, adapt: Callable[[Any], None]) -> None:
    """Change the datasets that a tool builds."""
    registry = tool.DATASETS

    def build(config: dict) -> Any:
        dataset = registry.build(config)
        adapt(dataset)
        return dataset

    tool.DATASETS = SimpleNamespace(build=build)


ADAPTERS: Dict[str, Callable[[ModuleType], None]] = {
    'mmdet/analysis_tools/analyze_results.py': adapt_analyze_results,
    'mmdet/analysis_tools/browse_dataset.py': adapt_browse_dataset,
    'mmdet/analysis_tools/confusion_matrix.py': adapt_confusion_matrix,
}
