"""Segment a video or the pictures of a camera; segments keep their colors from frame to frame.

    python demo/video_demo.py VIDEO MODEL CHECKPOINT --out segments.mp4
    python demo/video_demo.py 0 MODEL CHECKPOINT --show

VIDEO is a file, or the number of a camera; the key q ends it. MODEL is a config, the name of a model, or a
file of tools/misc/publish.py, which needs no checkpoint.
"""
import argparse
from typing import Optional, Sequence

from remax_mm.apis.command_line import (add_cfg_options, add_model_arguments, exit_on_error, make_parser,
                                        require_checkpoint)


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('video', help='video file, or number of a camera')
    add_model_arguments(parser)
    parser.add_argument('--out', help='video to write, .mp4 or .avi')
    parser.add_argument('--show', action='store_true', help='show the frames in a window')
    parser.add_argument('--max-frames', type=int, help='stop after this many frames')
    add_cfg_options(parser)
    args = parser.parse_args(arguments)
    if not (args.out or args.show):
        parser.error('expected --out, --show or both')
    return args


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.apis import PanopticInferencer
    from remax_mm.apis.segment_video import segment_video

    with exit_on_error():
        require_checkpoint(args)
        inferencer = PanopticInferencer(args.model, args.checkpoint, args.device, args.cfg_options)
        number = segment_video(inferencer, args.video, args.out, args.show, args.max_frames,
                               args.pred_score_thr)
    print(f'\nSegmented {number} frames' + (f', written to {args.out}' if args.out else ''))


if __name__ == '__main__':
    main()
