"""Inference from images to panoptic segments, with a config and a checkpoint."""
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import mmcv
import numpy as np
import torch
from mmdet.evaluation import INSTANCE_OFFSET
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.fileio import dump
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader, load_state_dict

from remax_mm.engine import check_weights, read_weights
from remax_mm.panoptic_format import number_segments, to_panoptic_map, write_segment_ids
from remax_mm.visualization import draw_panoptic
from .onnx_config import deployed_config, is_deployed
from .run_config import check_checkpoint, dataset_config, load_config, loads_annotation

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')

Image = Union[str, Path, np.ndarray]


class PanopticResult(NamedTuple):
    """Segments of one image.

    Attributes:
        image_path: File of the image, None for an array.
        segment_map: (H, W) int32 at the size of the image; 0 is void, other values are segment ids.
        segments_info: A dict per segment: ``id`` (1, 2, ...), ``label`` in [0, K), ``class_name``,
            ``is_thing``, ``score`` in [0, 1] (None if the model predicts none), ``area`` in pixels and
            ``bbox`` (x, y, width, height).
    """
    image_path: Optional[str]
    segment_map: np.ndarray
    segments_info: List[Dict[str, Any]]


class FailedImagesError(ValueError):
    """Some images could not be read or prepared; raised after the results of all others.

    Attributes:
        failed: Path of each such image (None for an array), and the reason.
    """

    def __init__(self, failed: Sequence[Tuple[Optional[str], str]]) -> None:
        self.failed = list(failed)
        lines = [f'  {path or "an array"}: {reason}' for path, reason in failed]
        super().__init__(f'Expected readable images, but {len(failed)} failed:\n' + '\n'.join(lines))


class PanopticInferencer:
    """Runs a panoptic model on image files, folders and arrays, one image at a time.

    Args:
        config: Config file, a loaded config, or an exported model: an ONNX file, or the folder that has it.
        checkpoint: Weights, a file or URL. None keeps the initial weights.
        device: Argument of ``torch.device``. None takes an accelerator if one is available.
        cfg_options: Overrides of the config, by dotted keys.

    Raises:
        FileNotFoundError: the config or the checkpoint does not exist.
        ValueError: the checkpoint does not fill the model.
    """

    def __init__(self,
                 config: Union[str, Path, Config],
                 checkpoint: Optional[str] = None,
                 device: Optional[str] = None,
                 cfg_options: Optional[dict] = None) -> None:
        config = load_config(deployed_config(config) if is_deployed(config) else config, cfg_options)
        init_default_scope(config.get('default_scope', 'mmdet'))
        model = revert_sync_batchnorm(MODELS.build(config.model))
        meta = None if checkpoint is None else _load_weights(model, checkpoint)
        self.dataset_meta = _dataset_meta(config) if meta is None else meta
        self.model = model.to(device or get_device()).eval()

        # No ground truth is loaded, and arrays are not read from a file.
        steps = [step for step in get_test_pipeline_cfg(config) if not loads_annotation(step)]
        self.file_pipeline = Compose(steps)
        self.array_pipeline = Compose([dict(type='mmdet.LoadImageFromNDArray'), *steps[1:]])

    @property
    def classes(self) -> Sequence[str]:
        """Names of the K classes."""
        return self.dataset_meta['classes']

    def __call__(self, images: Union[Image, Sequence[Image]], score_thr: float = 0.) -> List[PanopticResult]:
        """Segment images and return all results; see :meth:`stream`."""
        return list(self.stream(images, score_thr))

    def stream(self,
               images: Union[Image, Sequence[Image]],
               score_thr: float = 0.) -> Iterator[PanopticResult]:
        """Segment images one by one. After a bad file, the others follow, and the error comes last.

        Args:
            images: A file, a folder, a (H, W, 3) uint8 array in BGR order, or a sequence of these.
            score_thr: Segments with a lower score become void.

        Raises:
            FileNotFoundError: a file or folder is missing, or a folder has no image.
            FailedImagesError: images could not be read or prepared; raised after all results.
            ValueError: ``score_thr`` is above 0, but the model predicts no scores.
        """
        failed = []
        for image in list_images(images):
            path = None if isinstance(image, np.ndarray) else str(image)
            try:
                data = self._prepare(image)
            except Exception as error:  # transforms raise many types of errors, such as cv2.error
                failed.append((path, f'{type(error).__name__}: {error}'))
                continue
            yield self._infer(data, path, score_thr)
        if failed:
            raise FailedImagesError(failed)

    def _prepare(self, image: Image) -> dict:
        if isinstance(image, np.ndarray):
            return self.array_pipeline(dict(img=image, img_id=0))
        return self.file_pipeline(dict(img_path=str(image), img_id=0))

    @torch.no_grad()
    def _infer(self, data: dict, path: Optional[str], score_thr: float) -> PanopticResult:
        return self._to_result(self.model.test_step(pseudo_collate([data]))[0], path, score_thr)

    def _to_result(self, sample: DetDataSample, path: Optional[str], score_thr: float) -> PanopticResult:
        """Number the predicted segments and describe them."""
        predicted = sample.pred_panoptic_seg
        score_of = {segment['id']: segment['score'] for segment in predicted.get('segments_info', ())}
        panoptic_map = predicted.sem_seg[0].cpu().numpy()
        if score_thr > 0:
            panoptic_map = self._drop_low_scores(panoptic_map, score_of, score_thr)

        things = set(self.dataset_meta['thing_classes'])
        segment_map, segments = number_segments(panoptic_map, len(self.classes))
        segments_info = []
        for segment in segments:
            name = self.classes[segment['label']]
            segments_info.append(
                dict(
                    id=segment['id'],
                    label=segment['label'],
                    class_name=name,
                    is_thing=name in things,
                    score=score_of.get(segment['value']),
                    area=segment['area'],
                    bbox=segment['bbox']))
        return PanopticResult(path, segment_map, segments_info)

    def _drop_low_scores(self, panoptic_map: np.ndarray, score_of: Dict[int, float],
                         score_thr: float) -> np.ndarray:
        values = [
            value for value in np.unique(panoptic_map).tolist()
            if value % INSTANCE_OFFSET != len(self.classes)
        ]
        if not set(values) <= set(score_of):
            raise ValueError('Expected a model that scores its segments, because `score_thr` is above 0, but '
                             f'{type(self.model).__name__} gives no `segments_info`')
        low = [value for value in values if score_of[value] < score_thr]
        return np.where(np.isin(panoptic_map, low), len(self.classes), panoptic_map)

    def draw(self, image: np.ndarray, result: PanopticResult) -> np.ndarray:
        """Overlay of a result, (H, W, 3) uint8 RGB, on its image (H, W, 3) uint8 RGB."""
        labels = [segment['label'] for segment in result.segments_info]
        is_thing = [segment['is_thing'] for segment in result.segments_info]
        panoptic_map = to_panoptic_map(result.segment_map, labels, is_thing, len(self.classes))
        palette = self.dataset_meta.get('palette')
        return draw_panoptic(image, panoptic_map, self.classes,
                             palette if isinstance(palette, (list, tuple)) else None)


def list_images(images: Union[Image, Sequence[Image]]) -> List[Image]:
    """All images of an argument; for a folder, the images in it, sorted by name.

    Args:
        images: A file, a folder, an array, or a sequence of these.

    Raises:
        FileNotFoundError: a file or folder is missing, or a folder has no image.
    """
    if isinstance(images, np.ndarray):
        return [images]
    if not isinstance(images, (str, Path)):
        return [image for item in images for image in list_images(item)]
    path = Path(images)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f'Expected an image or a folder of images at {path}, but there is neither.')
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(
            f'Expected images ({", ".join(IMAGE_SUFFIXES)}) in {path}, but there are none.')
    return [*files]


def save_result(result: PanopticResult, overlay: np.ndarray, out_dir: Union[str, Path],
                name: str) -> List[Path]:
    """Write ``<name>_panoptic.png`` (segment ids), ``<name>_overlay.png`` and ``<name>.json`` (segments).

    Args:
        result: Segments of an image.
        overlay: (H, W, 3) uint8 RGB.
        out_dir: Folder, created if it does not exist.
        name: Start of the file names.

    Returns:
        The three files.
    """
    out_dir = Path(out_dir)
    files = [out_dir / f'{name}{suffix}' for suffix in ('_panoptic.png', '_overlay.png', '.json')]
    write_segment_ids(files[0], result.segment_map)
    if not mmcv.imwrite(overlay[..., ::-1], str(files[1])):
        raise OSError(f'Cannot write the overlay {files[1]}')
    height, width = result.segment_map.shape
    dump(
        dict(
            image=result.image_path,
            height=height,
            width=width,
            panoptic_png=files[0].name,
            segments_info=result.segments_info),
        files[2],
        indent=2)
    return files


def _load_weights(model: torch.nn.Module, checkpoint: str) -> Optional[dict]:
    """Load the weights and return the ``dataset_meta`` of the checkpoint, if it has one."""
    check_checkpoint(checkpoint)
    saved = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')
    weights = read_weights(saved, str(checkpoint))
    check_weights(model, weights, str(checkpoint))
    load_state_dict(model, weights)
    return saved.get('meta', {}).get('dataset_meta')


def _dataset_meta(config: Config) -> dict:
    """Class names and colors of the test dataset of a config; its files are not read."""
    return DATASETS.build(dict(dataset_config(config), lazy_init=True)).metainfo
