"""A detector that runs an ONNX file, so that mmengine's runner evaluates it like any model."""
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import torch
from mmdet.evaluation import INSTANCE_OFFSET
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from torch import Tensor

from remax_mm.panoptic_format import to_panoptic_map
from .remax_runtime import ModelFileError, PanopticModel, merge


@MODELS.register_module()
class OnnxDetector(BaseModel):
    """Predicts panoptic maps with a file of :func:`export_onnx`.

    Args:
        file: the ONNX file, or the folder that has it.
        panoptic_fusion_head: config of the fusion head, which merges the masks if the file gives logits;
            None if it does not.
        num_threads: threads of an operator; 0 lets onnxruntime choose.
        providers: execution providers of onnxruntime; None takes the CPU.

    Raises:
        ImportError: onnxruntime is not installed.
        ValueError: the file gives logits, and there is no fusion head for them.
    """

    def __init__(self,
                 file: str,
                 panoptic_fusion_head: Optional[ConfigDict] = None,
                 num_threads: int = 0,
                 providers: Optional[Sequence[str]] = None) -> None:
        super().__init__()
        self.exported = PanopticModel(file, providers, num_threads)
        self.num_classes = len(self.exported.classes)
        self.panoptic_fusion_head: Any = None
        if self.exported.metadata['outputs'] == 'logits':
            if panoptic_fusion_head is None:
                raise ModelFileError(
                    f'Expected a fusion head of remax_mm for the logits of {file}, but the config '
                    'has none')
            self.panoptic_fusion_head = MODELS.build(panoptic_fusion_head)

    def forward(self,
                inputs: Sequence[Tensor],
                data_samples: List[DetDataSample],
                mode: str = 'predict') -> List[DetDataSample]:
        """Segment the images of a batch one by one, at their original sizes.

        Args:
            inputs: images (3, h, w) uint8 in OpenCV's order, as the pipeline resized them.
            data_samples: of the images; ``pred_panoptic_seg`` is set.
            mode: ``predict``.

        Raises:
            NotImplementedError: another mode.
        """
        if mode != 'predict':
            raise NotImplementedError(f'Expected the mode `predict` for an exported model, but got {mode!r}')
        for image, sample in zip(inputs, data_samples):
            pixels = np.ascontiguousarray(image.cpu().numpy()[::-1].transpose(1, 2, 0))
            outputs = self.exported.run(pixels, sample.ori_shape[:2])
            sample.pred_panoptic_seg = self._merge(outputs, sample)
        return data_samples

    def _merge(self, outputs: Dict[str, np.ndarray], sample: DetDataSample) -> PixelData:
        if self.panoptic_fusion_head is not None:
            metadata = self.exported.metadata['input']
            sample.set_metainfo(dict(batch_input_shape=(metadata['height'], metadata['width'])))
            logits = (torch.from_numpy(outputs[name])[None] for name in ('class_logits', 'mask_logits'))
            return self.panoptic_fusion_head.predict(*logits, [sample], rescale=True)[0]['pan_results']
        try:
            segment_map, segments = merge(outputs, self.exported.metadata)
        except ValueError as error:
            raise ValueError(f'{error}, for {sample.get("img_path")}') from error
        panoptic_map = to_panoptic_map(segment_map, [segment.label for segment in segments],
                                       [segment.is_thing for segment in segments], self.num_classes)
        segments_info = [
            dict(
                id=segment.label + INSTANCE_OFFSET * number * segment.is_thing,
                label=segment.label,
                is_thing=segment.is_thing,
                score=segment.score) for number, segment in enumerate(segments, start=1)
        ]
        return PixelData(
            sem_seg=torch.from_numpy(panoptic_map)[None], metainfo=dict(segments_info=segments_info))
