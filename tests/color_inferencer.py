"""An inferencer that segments by color, see :mod:`tests.color_model`."""
from mmengine.config import Config

from remax_mm.apis import PanopticInferencer
from tests.color_model import color_detector


def color_inferencer() -> PanopticInferencer:
    """Classes cat, dog, sky and grass; images of up to 65x65 pixels, at their size."""
    names = ('cat', 'dog', 'sky', 'grass')
    dataset = dict(
        type='CocoPanopticMapDataset',
        ann_file='',
        data_prefix=dict(img=''),
        metainfo=dict(classes=names, thing_classes=names[:2], stuff_classes=names[2:]),
        pipeline=[dict(type='LoadImageStrict'), dict(type='PackPanopticInputs')],
        test_mode=True)
    config = dict(default_scope='mmdet', model=color_detector(), test_dataloader=dict(dataset=dataset))
    return PanopticInferencer(Config(config), device='cpu')
