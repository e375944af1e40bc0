"""Inference from images to panoptic segments, with a model by name, a config or a published model."""
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader, load_state_dict
from mmengine.utils import track_iter_progress
from mmengine.visualization import Visualizer
from torch import Tensor

from remax_mm.deploy.optimize import optimize_for_inference
from remax_mm.engine import check_weights, read_weights
from remax_mm.models.inference_copy import inference_copy
from .input_images import Images, image_name, image_source, list_images, load_image
from .onnx_config import deployed_config, is_deployed
from .panoptic_result import PanopticResult, draw_result, result_of, save_overlay, save_segments
from .published_model import (HUB_FILE, PublishedModel, download_model, is_published, read_published,
                              write_published)
from .run_config import check_checkpoint, dataset_config, load_config, loads_annotation


class FailedImagesError(ValueError):
    """Some images could not be read or prepared; raised after the results of all others.

    Attributes:
        failed: Path of each such image (None for an array), and the reason.
        results: What :meth:`PanopticInferencer.__call__` would have returned for the other images.
    """

    def __init__(self, failed: Sequence[Tuple[Optional[str], str]]) -> None:
        self.failed = list(failed)
        self.results: Optional[Dict[str, list]] = None
        lines = [f'  {path or "an array"}: {reason}' for path, reason in failed]
        super().__init__(f'Expected readable images, but {len(failed)} failed:\n' + '\n'.join(lines))


class PanopticInferencer:
    """Runs a panoptic model on images, with the arguments and results of MMDetection's inferencers.

    It is not a subclass: they stop at the first bad file, and build a model from any config in a checkpoint.

    Args:
        model: Name of a model (:func:`remax_mm.list_models`), config file, loaded config, published model (a
            file of :meth:`publish`, or a folder of :meth:`save_pretrained`), or exported model (an ONNX
            file, or the folder that has it). None takes ``weights``, which must be a published model.
        weights: Checkpoint, a file or URL. None takes those of a published model, or keeps the initial
            weights of a config.
        device: Argument of ``torch.device``. None takes an accelerator if one is available.
        cfg_options: Overrides of the config, by dotted keys.
        show_progress: Whether calls with several images show a progress bar.
        optimize: Whether to fold batch norms and to use faster layers, with the same results; see
            :func:`remax_mm.deploy.optimize.optimize_for_inference`. The model cannot be written then.

    Attributes:
        config: The config of the model and of its test pipeline.
        dataset_meta: ``classes``, ``thing_classes``, ``stuff_classes`` and ``palette`` of the model.
        model: The model in evaluation mode; ``test_step`` takes a batch and returns data samples.

    Raises:
        FileNotFoundError: the config or the checkpoint does not exist.
        ValueError: the checkpoint does not fill the model, or is not a published model where one is expected.
    """

    def __init__(self,
                 model: Union[str, Path, Config, None] = None,
                 weights: Union[str, Path, None] = None,
                 device: Optional[str] = None,
                 cfg_options: Optional[dict] = None,
                 show_progress: bool = True,
                 optimize: bool = False) -> None:
        if model is None:
            if weights is None:
                raise ValueError('Expected a model or weights, but got neither')
            model, weights = weights, None
        if is_deployed(model):
            model = deployed_config(model)
        published = read_published(model) if not isinstance(model, Config) and is_published(model) else None
        self.config = load_config(model if published is None else published.config, cfg_options)
        init_default_scope(self.config.get('default_scope', 'mmdet'))
        self.show_progress = show_progress

        built = revert_sync_batchnorm(MODELS.build(self.config.model))
        if published is not None:
            built = inference_copy(built)  # the file has no other weights
        source = _read_source(weights, published)
        if source is not None:
            check_weights(built, source.weights, source.path)
            load_state_dict(built, source.weights)
        meta = None if source is None else source.dataset_meta
        self.dataset_meta = _dataset_meta(self.config) if meta is None else meta
        self.model: Any = built.to(device or get_device()).eval()
        self.optimized = optimize
        if optimize:
            self.model = optimize_for_inference(self.model)

        # Images are decoded before the pipeline, and no ground truth is loaded.
        first, *steps = [step for step in get_test_pipeline_cfg(self.config) if not loads_annotation(step)]
        load_array = dict(type='mmdet.LoadImageFromNDArray', to_float32=first.get('to_float32', False))
        self.pipeline = Compose([load_array, *steps])
        self._visualizer = Visualizer()
        self._num_unnamed = 0

    @classmethod
    def from_pretrained(cls,
                        name: Union[str, Path],
                        revision: Optional[str] = None,
                        device: Optional[str] = None,
                        **options: Any) -> 'PanopticInferencer':
        """The model of :meth:`save_pretrained`, from a folder or the Hugging Face Hub. No code of it runs.

        Args:
            name: The folder, or the id of a repository, such as ``user/remax-t``.
            revision: Branch, tag or commit of the repository.
            device: See the class.
            options: Further arguments of the class.

        Raises:
            ImportError: a repository is asked for, and huggingface_hub is not installed.
            FileNotFoundError: the folder, or the repository, has no ``model.safetensors``.
        """
        folder = Path(name)
        path = folder / HUB_FILE if folder.is_dir() else download_model(str(name), revision)
        return cls(path, device=device, **options)

    def publish(self, path: Union[str, Path]) -> Path:
        """Write a file with the weights for inference, the config and the classes; it loads as ``model``.

        Args:
            path: File ending in ``.safetensors`` or ``.pth``. The first 8 digits of the SHA-256 of the file
                are added to its name.

        Returns:
            The file.

        Raises:
            ValueError: another suffix, an optimized model, or the config has other parts than those of
                remax_mm and those of mmdet that it uses: loading them from a file could run code.
        """
        self._check_weights_are_plain()
        return write_published(self.model, self.config, self.dataset_meta, Path(path), hash_in_name=True)

    def save_pretrained(self, folder: Union[str, Path]) -> Path:
        """Write ``model.safetensors``, with weights, config and classes, for :meth:`from_pretrained`.

        Args:
            folder: Created if it does not exist; upload it with ``hf upload user/name FOLDER``.

        Returns:
            The file.

        Raises:
            ValueError: see :meth:`publish`.
        """
        self._check_weights_are_plain()
        return write_published(self.model, self.config, self.dataset_meta, Path(folder) / HUB_FILE)

    def _check_weights_are_plain(self) -> None:
        if self.optimized:
            raise ValueError('Expected an inferencer with `optimize=False` to write its model, because the '
                             'weights of an optimized model do not fit its config')

    @property
    def classes(self) -> Sequence[str]:
        """Names of the K classes."""
        return self.dataset_meta['classes']

    def __call__(self,
                 inputs: Images,
                 batch_size: int = 1,
                 pred_score_thr: float = 0.,
                 return_vis: bool = False,
                 show: bool = False,
                 wait_time: float = 0.,
                 out_dir: Union[str, Path] = '',
                 pred_out_dir: Union[str, Path] = '',
                 no_save_vis: bool = False,
                 no_save_pred: bool = False) -> Dict[str, list]:
        """Segment images, and draw and save the results.

        Args:
            inputs, batch_size, pred_score_thr: See :meth:`stream`.
            return_vis: Whether to return the overlays.
            show: Whether to show each overlay in a window.
            wait_time: Seconds until the window closes; 0 waits for a key.
            out_dir: Folder for overlays, ``<name>_overlay.png``, and predictions. Empty saves nothing there.
            pred_out_dir: Folder for predictions, ``<name>_panoptic.png`` (segment ids) and ``<name>.json``.
                Empty takes ``out_dir``.
            no_save_vis, no_save_pred: Whether to save no overlays, or no predictions. Unlike for mmdet's
                inferencers, both are saved by default.

        Returns:
            ``predictions``: a :class:`PanopticResult` per image. ``visualization``: with ``return_vis``, the
            overlays (H, W, 3) uint8 in RGB order.

        Raises:
            ValueError: two of the images would be saved under the same name.
            FailedImagesError: see :meth:`stream`; its ``results`` are those of the other images.
        """
        images = list_images(inputs)
        vis_dir = None if no_save_vis or not out_dir else Path(out_dir)
        pred_dir = None if no_save_pred or not (pred_out_dir or out_dir) else Path(pred_out_dir or out_dir)
        names = self._names(images) if vis_dir or pred_dir else []
        results: Dict[str, list] = dict(predictions=[], visualization=[])
        pairs: Iterator = self._segment(images, batch_size, pred_score_thr)
        if self.show_progress and len(images) > 1:
            pairs = track_iter_progress((pairs, len(images)), file=sys.stdout)
        try:
            for index, result, image in pairs:
                results['predictions'].append(result)
                if pred_dir:
                    save_segments(result, pred_dir, names[index])
                if not (vis_dir or return_vis or show):
                    continue
                overlay = self.draw(np.ascontiguousarray(image[..., ::-1]), result)
                if vis_dir:
                    save_overlay(overlay, vis_dir, names[index])
                if return_vis:
                    results['visualization'].append(overlay)
                if show:
                    title = image_name(result.image_path) if result.image_path else 'image'
                    self._visualizer.show(overlay, win_name=title, wait_time=wait_time)
        except FailedImagesError as error:
            error.results = results
            raise
        return results

    def stream(self,
               inputs: Images,
               batch_size: int = 1,
               pred_score_thr: float = 0.) -> Iterator[PanopticResult]:
        """Segment images one after the other. After a bad file, the others follow, and the error comes last.

        Args:
            inputs: A file, folder or URL, an array or PIL image, or a sequence of these, see
                :func:`list_images` and :func:`to_bgr`.
            batch_size: Number of images that the model gets at once.
            pred_score_thr: Segments with a lower score become void.

        Raises:
            FileNotFoundError: a file or folder is missing, or a folder has no image.
            FailedImagesError: images could not be read or prepared; raised after all results.
            ValueError: ``pred_score_thr`` is above 0, but the model predicts no scores.
        """
        for _, result, _ in self._segment(list_images(inputs), batch_size, pred_score_thr):
            yield result

    def _segment(self, images: Sequence, batch_size: int,
                 score_thr: float) -> Iterator[Tuple[int, PanopticResult, np.ndarray]]:
        """Index, result and pixels (H, W, 3), in BGR order, of each image that can be read."""
        if batch_size < 1:
            raise ValueError(f'Expected a batch size of at least 1, but got {batch_size}')
        failed, batch = [], []
        for index, image in enumerate(images):
            try:
                pixels = load_image(image)
                batch.append((index, pixels, self.pipeline(dict(img=pixels, img_id=index))))
            except Exception as error:  # transforms raise many types of errors, such as cv2.error
                failed.append((image_source(image), f'{type(error).__name__}: {error}'))
            if batch and (len(batch) == batch_size or index == len(images) - 1):
                samples = self._infer([data for _, _, data in batch])
                for (number, pixels, _), sample in zip(batch, samples):
                    source = image_source(images[number])
                    yield number, result_of(sample, source, self.dataset_meta, score_thr), pixels
                batch = []
        if failed:
            raise FailedImagesError(failed)

    @torch.no_grad()
    def _infer(self, batch: List[dict]) -> List[DetDataSample]:
        return self.model.test_step(pseudo_collate(batch))

    def _names(self, images: Sequence) -> List[str]:
        """Names of the files of the results; arrays get numbers that go on from call to call."""
        names = []
        for image in images:
            source = image_source(image)
            names.append(f'{self._num_unnamed:08d}' if source is None else image_name(source))
            self._num_unnamed += source is None
        double = sorted(name for name, number in Counter(names).items() if number > 1)
        if double:
            raise ValueError(f'Expected images with different names, but the results of {double} would '
                             'overwrite each other')
        return names

    def draw(self, image: np.ndarray, result: PanopticResult, alpha: float = 0.6) -> np.ndarray:
        """Overlay of a result on its image (H, W, 3) uint8 RGB, see :func:`draw_result`."""
        return draw_result(image, result, self.dataset_meta, alpha)


class _Source(NamedTuple):
    """Weights, their origin, and the classes that belong to them."""
    path: str
    weights: Mapping[str, Tensor]
    dataset_meta: Optional[dict]


def _read_source(weights: Union[str, Path, None], published: Optional[PublishedModel]) -> Optional[_Source]:
    """The weights to load: those of a checkpoint, or else of a published model."""
    if weights is None:
        return None if published is None else _Source(published.path, published.weights,
                                                      published.dataset_meta)
    if Path(weights).suffix == '.safetensors' or Path(weights).is_dir():
        return _read_source(None, read_published(weights))
    check_checkpoint(weights)
    saved = CheckpointLoader.load_checkpoint(str(weights), map_location='cpu')
    return _Source(str(weights), read_weights(saved, str(weights)), saved.get('meta', {}).get('dataset_meta'))


def _dataset_meta(config: Config) -> dict:
    """Class names and colors of the test dataset of a config; its files are not read."""
    return DATASETS.build(dict(dataset_config(config), lazy_init=True)).metainfo
