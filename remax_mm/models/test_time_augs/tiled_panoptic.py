"""Images larger than a detector can take, as overlapping tiles."""
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
    """Run a detector on tiles of an image, one after the other, and stitch their panoptic maps.

    A tile is an image of its own to the detector. What the device holds does not depend on the size of the
    image; the image, its map and the maps of a few rows of tiles lie in the host's memory. Area limits in
    the detector's ``test_cfg`` hold within each tile. An image that fits one tile is left to the detector.

    The result is ``pred_panoptic_seg`` as of :class:`PanopticFusionHead`: ``sem_seg`` (1, H, W) int32, on the
    CPU where there were several tiles, and the metainfo ``segments_info`` if the detector gives it. The
    score of a segment is the mean of the tiles' scores over its pixels.

    Args:
        module: config of a detector, or the detector. The pipeline must leave images at their original size.
        tile_size: side of a tile, or (height, width): the crop that the detector was trained on.
        overlap: least pixels that neighboring tiles share, from 1 to half a tile.
        iou_threshold: see :func:`stitch_tiles`.
        data_preprocessor: replaces the detector's where given.

    Raises:
        ValueError: the overlap does not fit the tile, the threshold is below 0.5, an image comes resized, or
            the detector gives instances or a semantic map, which are not stitched.
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
            raise ValueError(f'Expected the side of a tile, or its height and width, but got {tile_size}')
        self.tile_size = (sides[0], sides[-1])
        self.overlap = overlap
        self.iou_threshold = iou_threshold
        plan_tiles(self.tile_size, self.tile_size, overlap)  # raises early
        if not 0.5 <= iou_threshold < 1:
            raise ValueError(
                f'Expected an IoU threshold in [0.5, 1), but got {iou_threshold}: below, a thing '
                'could be joined with two of a neighboring tile')

    def test_step(self, data: dict) -> SampleList:
        """Predict a batch: ``inputs``, images (3, H, W), and their ``data_samples``."""
        return [self._predict(image, sample) for image, sample in zip(data['inputs'], data['data_samples'])]

    def merge_preds(self, data_samples_list: Iterable[TilePrediction], size: Sequence[int]) -> PixelData:
        """Stitch the tiles of one image (height, width); unlike the parent's, they are drawn one by one."""
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
                f'of {tuple(sample.ori_shape[:2])} (height, width) comes as {size}: leave the '
                'resizing out of the test pipeline')
        tiles = (self._predict_tile(image, sample, window) for window in windows)
        sample.pred_panoptic_seg = self.merge_preds(tiles, size)
        return sample

    def _predict_tile(self, image: Tensor, sample: DetDataSample, window: Window) -> TilePrediction:
        """Let the detector take a tile for an image; its map comes to the CPU, all else is let go."""
        rows, cols = (slice(span.start, span.stop) for span in window)
        tile = image[:, rows, cols]
        size = tuple(tile.shape[-2:])
        tile_sample = DetDataSample(metainfo={**sample.metainfo, 'img_shape': size, 'ori_shape': size})
        result, = self.module.test_step(dict(inputs=[tile], data_samples=[tile_sample]))

        unstitched = {'pred_instances', 'pred_sem_seg'} & set(result.keys())
        if unstitched:
            raise ValueError(
                f'Expected panoptic maps alone, which can be stitched, but the detector gives '
                f'{sorted(unstitched)} too: set `instance_on=False` and `semantic_on=False` in its '
                '`test_cfg`')
        panoptic = result.pred_panoptic_seg
        infos = panoptic.get('segments_info')
        scores = None if infos is None else {info['id']: info['score'] for info in infos}
        return TilePrediction(window, panoptic.sem_seg[0].cpu().numpy(), scores)
