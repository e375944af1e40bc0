"""Convert a TensorFlow checkpoint of kMaX-DeepLab (google-research/deeplab2) for this project.

    python tools/model_converters/deeplab2_to_remax_mm.py kmax_max-s/ckpt-150000 checkpoints/kmax_max-s.pth

Reads a checkpoint, given without its `.index`, if TensorFlow is installed. Otherwise, write a `.npz` where
TensorFlow is installed, and convert that:

    import numpy, tensorflow
    reader = tensorflow.train.load_checkpoint('kmax_max-s/ckpt-150000')
    numpy.savez('max-s.npz', **{key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()})

Supports ResNet-50, MaX-S and ConvNeXt on COCO, ADE20K and Cityscapes. TensorFlow's ResNet-50 is another
network than the usual one and becomes a `DeepLab2ResNet`. The auxiliary semantic head, which is used in
training only, takes the features of strides 4 and 8 with activation in TensorFlow, and without it here.

Class outputs are put into the class order of our datasets.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import exit_on_error, make_parser, parse_checkpoint_arguments

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    return parse_checkpoint_arguments(
        make_parser(__doc__), 'checkpoint without its .index, or a .npz of one', arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.apis import load_config
    from remax_mm.model_converters import convert_deeplab2

    with exit_on_error():
        config = None if args.config is None else load_config(args.config)
        checkpoint = convert_deeplab2(args.source, args.target, CONFIGS, config)
    classes = len(checkpoint['meta']['dataset_meta']['classes'])
    print(f'Wrote {len(checkpoint["state_dict"])} weights for {classes} classes to {args.target}')


if __name__ == '__main__':
    main()
