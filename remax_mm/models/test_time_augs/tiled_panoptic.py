"""Tiled inference for images that are too large for a detector."""
from typing import Iterable, Optional, Sequence, Union

import torch
from mmdet.evaluation import INSTANCE_OFFSET
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.config import ConfigDict
from mmengine.model import BaseTTAModel
from mmengine.structures import PixelData
from torch import Tensor

from .stitch_tiles import TilePrediction, Window, plan_tiles, stitch_tiles


@MODELS.register_module()
class TiledPanopticModel(BaseTTAModel):
    """Run a detector on the tiles of an image, one after the other, and stitch their panoptic maps.

    The detector processes each tile as an image. Device memory does not depend on the size of the image; the
    image, its map and the maps of a few rows of tiles are in host memory. Area limits in the detector's
    ``test_cfg`` apply to each tile separately. An image that fits in one tile is passed to the detector
    unchanged.

    The result is ``pred_panoptic_seg`` as in :class:`PanopticFusionHead`: ``sem_seg`` (1, H, W) int32, on the
    CPU if there were several tiles, and the metainfo ``segments_info`` if the detector returns it. The score
    of a segment is the mean of the tiles' scores over its pixels.

    Args:
        module: config of a detector, or the detector. The pipeline must not resize the images.
        tile_size: side of a tile, or (height, width): the crop size that the detector was trained with.
        overlap: minimum overlap of neighboring tiles in pixels, from 1 to half a tile.
        iou_threshold: see :func:`stitch_tiles`.
        data_preprocessor: replaces the data preprocessor of the detector if given.

    Raises:
        ValueError: the overlap does not fit the tile, the threshold is below 0.5, an image was resized, or
            the detector returns instances or a semantic map, which are not stitched.
    """

    def __init__(self,
                 module: ConfigDict,
                 tile_size: Union[int, Sequence[int]],
                 overlap: int = 128,
                 iou_threshold: float = 0.5,
                 data_preprocessor: Optional[ConfigDict] = None) -> None:
        super().__init__(module, data_preprocessor)
        sides = [tile_size] if isinstance(tile_size, int) else list(tile_size)
        if len(sides) not in (1, 2):
            raise ValueError(f'Expected `tile_size` to be a side or a height and width, but got {tile_size}')
        self.tile_size = (sides[0], sides[-1])
        self.overlap = overlap
        self.iou_threshold = iou_threshold
        plan_tiles(self.tile_size, self.tile_size, overlap)  # raises an error early
        if not 0.5 <= iou_threshold < 1:
            raise ValueError(
                f'Expected an IoU threshold in [0.5, 1), but got {iou_threshold}: below 0.5, a thing '
                'could be joined with two things of a neighboring tile')

    def test_step(self, data: dict) -> SampleList:
        """Predict a batch: ``inputs``, images (3, H, W), and their ``data_samples``."""
        return [self._predict(image, sample) for image, sample in zip(data['inputs'], data['data_samples'])]

    def merge_preds(self, data_samples_list: Iterable[TilePrediction], size: Sequence[int]) -> PixelData:
        """Stitch the tiles of one image of ``size`` (height, width); the tiles are computed one by one."""
        panoptic_map, scores = stitch_tiles(data_samples_list, size, self.module.num_classes,
                                            self.iou_threshold)
        metainfo = {}
        if scores is not None:
            metainfo['segments_info'] = [
                dict(id=value, label=value % INSTANCE_OFFSET, is_thing=value >= INSTANCE_OFFSET, score=score)
                for value, score in scores.items()
            ]
        return PixelData(sem_seg=torch.from_numpy(panoptic_map)[None], metainfo=metainfo)

    def _predict(self, image: Tensor, sample: DetDataSample) -> DetDataSample:
        size = tuple(image.shape[-2:])
        windows = plan_tiles(size, self.tile_size, self.overlap)
        if len(windows) == 1:
            return self.module.test_step(dict(inputs=[image], data_samples=[sample]))[0]
        if size != tuple(sample.ori_shape[:2]):
            raise ValueError(
                f'Expected images at their original size for tiles, but {sample.get("img_path")} '
                f'of {tuple(sample.ori_shape[:2])} (height, width) was resized to {size}: remove the '
                'resizing from the test pipeline')
        tiles = (self._predict_tile(image, sample, window) for window in windows)
        sample.pred_panoptic_seg = self.merge_preds(tiles, size)
        return sample

    def _predict_tile(self, image: Tensor, sample: DetDataSample, window: Window) -> TilePrediction:
        """Run the detector on one tile; only its panoptic map is kept, on the CPU."""
        rows, cols = (slice(span.start, span.stop) for span in window)
        tile = image[:, rows, cols]
        size = tuple(tile.shape[-2:])
        tile_sample = DetDataSample(metainfo={**sample.metainfo, 'img_shape': size, 'ori_shape': size})
        result, = self.module.test_step(dict(inputs=[tile], data_samples=[tile_sample]))

        unsupported = {'pred_instances', 'pred_sem_seg'} & set(result.keys())
        if unsupported:
            raise ValueError(
                'Expected panoptic results only, because others cannot be stitched, but the detector '
                f'returns {sorted(unsupported)}: set `instance_on=False` and `semantic_on=False` in its '
                '`test_cfg`')
        panoptic = result.pred_panoptic_seg
        infos = panoptic.get('segments_info')
        scores = None if infos is None else {info['id']: info['score'] for info in infos}
        return TilePrediction(window, panoptic.sem_seg[0].cpu().numpy(), scores)
