"""mmdet's ResNet with the stem as an additional feature, as in kMaX-DeepLab on Cityscapes."""
from typing import Any, Sequence, Tuple

from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from torch import Tensor

from ..layers import run_blocks

FEATURES = ('stem', 'pooled_stem', 'res2', 'res3', 'res4', 'res5')
"""Strides 2, 4, 4, 8, 16 and 32."""


@MODELS.register_module()
class StemResNet(ResNet):
    """ResNet whose features are selected by name.

    ``'stem'`` is the activated feature before the max-pool, ``'pooled_stem'`` the output of the max-pool, and
    ``'res2'`` to ``'res5'`` are the outputs of the stages.

    In google-research/deeplab2 the pixel decoder gets strides 2, 4, 8, 16 and 32. In bytedance/kmax-deeplab
    the stem is the output of the max-pool, at stride 4 like res2, and the decoder uses it before res2
    (kmax_deeplab/modeling/backbone/resnet.py and pixel_decoder/kmax_pixel_decoder.py, which sorts features by
    stride): ``out_features=('res2', 'pooled_stem', 'res3', 'res4', 'res5')``.

    Args:
        depth: see ``ResNet`` of mmdet.
        out_features: names of the returned features, from :data:`FEATURES`, in the order of the output.
        with_cp: whether training keeps the inputs of the blocks alone, as in mmdet's ``ResNet``. There, batch
            norms are updated twice in each step; here, once.
        options: other arguments of ``ResNet``, without ``out_indices``.

    Raises:
        ValueError: ``out_features`` is empty or has an unknown name.
    """

    def __init__(self,
                 depth: int,
                 out_features: Sequence[str] = ('stem', 'res2', 'res3', 'res4', 'res5'),
                 with_cp: bool = False,
                 **options: Any) -> None:
        unknown = [name for name in out_features if name not in FEATURES]
        if unknown or not out_features:
            raise ValueError(f'Expected `out_features` of StemResNet to be names among {FEATURES}, but got '
                             f'{tuple(out_features)}.')
        super().__init__(depth, out_indices=(0, 1, 2, 3), **options)
        self.out_features = tuple(out_features)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) -> (B, C, h, w) for each of ``out_features``, with h = (H - 1) // stride + 1."""
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        features = [x, self.maxpool(x)]
        for name in self.res_layers:
            features.append(run_blocks(getattr(self, name), features[-1], self.with_cp))

        by_name = dict(zip(FEATURES, features))
        return tuple(by_name[name] for name in self.out_features)
