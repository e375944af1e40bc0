"""The ground truth of test pipelines."""
from typing import Sequence

import numpy as np
from mmdet.registry import TRANSFORMS

from .load_panoptic_map import LoadPanopticMap


@TRANSFORMS.register_module()
class LoadSegmentIds(LoadPanopticMap):
    """Load all segment ids of a panoptic record, crowd regions included, for metrics and pictures.

    Each annotated PNG is decoded once, here; the data sample takes the ids to all metrics and to the
    visualizer. No other transform changes the ids, so this one may stand anywhere before the packing step.
    Required keys, checks, arguments and errors are those of :class:`LoadPanopticMap`; with
    ``check_segments=False`` the ids stay as they are in the PNG.

    Added key: ``gt_segment_ids``, (H, W) int32 at the original size, 0 is unlabeled.
    """

    def _add_ground_truth(self, results: dict, ids: np.ndarray, index: np.ndarray,
                          segments: Sequence[dict]) -> None:
        results['gt_segment_ids'] = ids
