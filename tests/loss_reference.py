"""Inputs and results of the public kMaX-DeepLab criterion (``tests/data/reference/README.md``)."""
import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from remax_mm.structures import MaskPrediction, PanopticTargets
from tests.dense_criterion import DenseTargets

CASES = ('all_pixels', 'sampled_k64', 'cityscapes_semantic_k0_low_res', 'separate_matching',
         'more_gt_than_queries', 'second_image_without_gt')
OVERLAPPING = 'overlapping_gt'
"""A case that the ground truth of this package cannot have."""
NUM_CLASSES = 7
OUTPUTS = ('aux0', 'aux1', 'aux2', 'final')


def load_outputs(folder: Path, case: str) -> Dict[str, Any]:
    return json.loads((folder / 'loss_outputs.json').read_text())[case]


def load_inputs(folder: Path, dtype: torch.dtype = torch.float32) -> Dict[str, Tensor]:
    """Logits and features by name, ready for gradients."""
    with np.load(folder / 'loss_inputs.npz') as file:
        names = [name for name in file.files if not name.startswith('gt')]
        return {name: torch.from_numpy(file[name]).to(dtype).requires_grad_() for name in names}


def to_predictions(inputs: Dict[str, Tensor]) -> List[MaskPrediction]:
    parts = ('pred_logits', 'pred_masks', 'pixel_feature')
    return [MaskPrediction(*(inputs[f'{output}_{part}'] for part in parts)) for output in OUTPUTS]


def load_dense_targets(folder: Path, case: str, dtype: torch.dtype = torch.float32) -> DenseTargets:
    prefix = {OVERLAPPING: 'overlap_', 'more_gt_than_queries': 'many_'}.get(case, '')
    name = 'loss_extra_targets.npz' if prefix else 'loss_inputs.npz'
    with np.load(folder / name) as file:
        masks, labels, sem_seg = ([torch.from_numpy(file[f'{prefix}gt{image}_{part}']) for image in (0, 1)]
                                  for part in ('masks', 'labels', 'semantic_masks'))
    if case == 'second_image_without_gt':
        masks[1], labels[1], sem_seg[1] = masks[1][:0], labels[1][:0], torch.full_like(sem_seg[1], -1)

    padded = pad_sequence(masks, batch_first=True).to(dtype)
    stacked = torch.stack(sem_seg)
    return DenseTargets(
        masks=padded,
        labels=pad_sequence(labels, batch_first=True, padding_value=NUM_CLASSES),
        void=padded.sum(1) == 0,
        sem_seg=stacked.masked_fill(stacked < 0, NUM_CLASSES))


def load_targets(folder: Path, case: str) -> PanopticTargets:
    masks, labels, void, sem_seg = load_dense_targets(folder, case)
    assert (masks.sum(1) <= 1).all()  # no overlap
    owner = masks.argmax(1).masked_fill(void, masks.shape[1])
    return PanopticTargets(owner, labels, masks.sum((2, 3)).long(), sem_seg)


def load_sample_indices(folder: Path) -> Dict[str, Tensor]:
    with np.load(folder / 'loss_sample_indices_k64.npz') as file:
        return {name: torch.from_numpy(file[name].astype(np.int64)) for name in file.files}
