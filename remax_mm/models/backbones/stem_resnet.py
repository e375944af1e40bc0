"""mmdet's ResNet with its stem among the features, as kMaX-DeepLab takes it on Cityscapes."""
from typing import Any, Sequence, Tuple

from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from torch import Tensor

FEATURES = ('stem', 'pooled_stem', 'res2', 'res3', 'res4', 'res5')
"""Strides 2, 4, 4, 8, 16 and 32."""


@MODELS.register_module()
class StemResNet(ResNet):
    """ResNet that gives the features it is asked for by name, in that order.

    ``'stem'`` is what comes before the max-pool, activated as all other features are, and ``'pooled_stem'``
    what comes after it; ``'res2'`` to ``'res5'`` are the ends of the stages.

    google-research/deeplab2 gives its pixel decoder strides 2, 4, 8, 16, 32. In bytedance/kmax-deeplab the
    stem lies after the max-pool, and since its stride is then that of res2, the decoder meets it before res2
    (kmax_deeplab/modeling/backbone/resnet.py and pixel_decoder/kmax_pixel_decoder.py, which sorts features by
    stride): ``out_features=('res2', 'pooled_stem', 'res3', 'res4', 'res5')``.

    Args:
        depth: as of ``ResNet``.
        out_features: names among :data:`FEATURES`, in the order in which to return them.
        options: all other arguments of ``ResNet`` but ``out_indices``.

    Raises:
        ValueError: an unknown name in ``out_features``.
    """

    def __init__(self,
                 depth: int,
                 out_features: Sequence[str] = ('stem', 'res2', 'res3', 'res4', 'res5'),
                 **options: Any) -> None:
        unknown = [name for name in out_features if name not in FEATURES]
        if unknown or not out_features:
            raise ValueError(f'Expected `out_features` of StemResNet among {FEATURES}, but got '
                             f'{tuple(out_features)}')
        super().__init__(depth, out_indices=(0, 1, 2, 3), **options)
        self.out_features = tuple(out_features)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) -> one (B, C, h, w) for each of ``out_features``, h = (H - 1) // stride + 1."""
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        features = [x, self.maxpool(x)]
        for name in self.res_layers:
            features.append(getattr(self, name)(features[-1]))

        by_name = dict(zip(FEATURES, features))
        return tuple(by_name[name] for name in self.out_features)
