"""What the report measures: models and numbers, in full and in a trial that a CPU runs in a minute."""
from typing import NamedTuple, Tuple


class Model(NamedTuple):
    """A model of the report.

    Attributes:
        title: in tables.
        name: of its config, for :func:`find_config`.
        side: height and width of the images.
    """
    title: str
    name: str
    side: int


class Scale(NamedTuple):
    """Models and numbers.

    Attributes:
        models: of this package, the most informative one first.
        mask2former: of MMDetection, at the sizes that it is compared at; multiples of 32, to which it pads.
        batch_size: of the recipes, per GPU.
        max_batch_size: where the doubling of the batch ends if everything fits.
        num_segments: of a drawn image.
        warmup: number of training steps before the measurement.
        rounds: number of training steps that are measured.
        engines: of inference, for the models of this package.
        images: number of images of an engine that are measured.
        num_workers: of the data loaders, as in the recipes.
        loader_steps: number of training steps with the data loader before and in the measurement. They empty
            what the loader has prepared: 2 batches of each worker.
        compile_backend: of ``torch.compile`` in training.
        coco_like: whether the data loader reads drawn images of COCO's size, otherwise the mini dataset.
        mini_images: numbers of training and validation images of the mini dataset.
        mini_iterations: of the short training.
    """
    models: Tuple[Model, ...]
    mask2former: Tuple[Model, ...]
    batch_size: int
    max_batch_size: int
    num_segments: int
    warmup: int
    rounds: int
    engines: Tuple[str, ...]
    images: int
    num_workers: int
    loader_steps: int
    compile_backend: str
    coco_like: bool
    mini_images: Tuple[int, int]
    mini_iterations: int


FULL = Scale(
    models=(Model('ReMaX-B (R50, 1281)', 'remax-b', 1281), Model('ReMaX-T (641)', 'remax-t', 641),
            Model('ReMaX-M (R50, 641)', 'remax-m', 641), Model('ReMaX-S (641)', 'remax-s', 641)),
    mask2former=(Model('Mask2Former (R50, 1280)', 'mask2former',
                       1280), Model('Mask2Former (R50, 640)', 'mask2former', 640)),
    batch_size=8,
    max_batch_size=512,
    num_segments=20,
    warmup=2,
    rounds=4,
    engines=('eager', 'optimized', 'bfloat16', 'cuda-graphs', 'bfloat16-cuda-graphs', 'compile'),
    images=30,
    num_workers=8,
    loader_steps=16,
    compile_backend='inductor',
    coco_like=True,
    mini_images=(400, 64),
    mini_iterations=1000)
TINY = Scale(
    models=(Model('ReMaX (mini, 129)', 'remax-mini', 129), ),
    mask2former=(Model('Mask2Former (R18, 128)', 'mask2former_r18_1xb8-600_mini-129', 128), ),
    batch_size=2,
    max_batch_size=2,
    num_segments=4,
    warmup=1,
    rounds=1,
    engines=('eager', 'optimized', 'bfloat16', 'cuda-graphs'),
    images=1,
    num_workers=0,
    loader_steps=1,
    compile_backend='eager',
    coco_like=False,
    mini_images=(4, 2),
    mini_iterations=2)
SCALES = dict(full=FULL, tiny=TINY)
