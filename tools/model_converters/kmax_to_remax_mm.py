"""Convert a checkpoint of the public PyTorch code of kMaX-DeepLab (bytedance/kmax-deeplab) for this project.

    python tools/model_converters/kmax_to_remax_mm.py kmax_r50.pth checkpoints/kmax_r50.pth

Reads a torch file, or a `.pkl` of numpy arrays from Detectron2; the weights are under `model` or at the top.
Batch norms may lack `num_batches_tracked`, as in files that the release's script convert-tf-weights-to-d2.py
made of TensorFlow checkpoints. TensorFlow's ResNet-50 is another network than the release's and ours: it has
no max-pool, and the pixel decoder takes its features before their activation.

Class outputs are put into the class order of our datasets. On Cityscapes the release's ResNet-50 is that of
configs/kmax/kmax_r50-os4_8xb4-60k_cityscapes-1025x2049.py; TensorFlow's has the pixel decoder of
configs/kmax/kmax_r50_8xb4-60k_cityscapes-1025x2049.py.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import exit_on_error, make_parser, parse_checkpoint_arguments

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    return parse_checkpoint_arguments(
        make_parser(__doc__), 'checkpoint of the release, .pth or .pkl', arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.apis import load_config
    from remax_mm.model_converters import convert_kmax

    with exit_on_error():
        config = None if args.config is None else load_config(args.config)
        checkpoint = convert_kmax(args.source, args.target, CONFIGS, config)
    classes = len(checkpoint['meta']['dataset_meta']['classes'])
    print(f'Wrote {len(checkpoint["state_dict"])} weights for {classes} classes to {args.target}')


if __name__ == '__main__':
    main()
