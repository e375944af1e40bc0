"""Eq. 1 of ReMaX (arXiv 2306.17319) as plain loops over pixels, slots and classes."""
import itertools
import math

from torch import Tensor


def reference_gate(sem_logits: Tensor, class_logits: Tensor) -> Tensor:
    """Gate (B, N, h, w) with sigmoids, from semantic logits (B, C, h, w) and class logits (B, N, K + 1)."""
    num_classes = class_logits.shape[-1] - 1
    gate = sem_logits.new_zeros(*class_logits.shape[:2], *sem_logits.shape[2:])
    sem_logits, class_logits = sem_logits.tolist(), class_logits.tolist()
    for image, slot, row, column in itertools.product(*map(range, gate.shape)):
        gate[image, slot, row, column] = sum(1 / (1 + math.exp(-sem_logits[image][label][row][column])) /
                                             (1 + math.exp(-class_logits[image][slot][label]))
                                             for label in range(num_classes))
    return gate


def reference_ground_truth_gate(sem_seg: Tensor, class_logits: Tensor, activation: str) -> Tensor:
    """Probability (B, N, h, w) of each slot for the true class (B, h, w) of each pixel; 0 at void."""
    num_classes = class_logits.shape[-1] - 1
    gate = class_logits.new_zeros(*class_logits.shape[:2], *sem_seg.shape[1:])
    for image, slot, row, column in itertools.product(*map(range, gate.shape)):
        label = int(sem_seg[image, row, column])
        if label < num_classes:
            logits = class_logits[image, slot]
            total = logits.exp().sum() if activation == 'softmax' else 1 + logits[label].exp()
            gate[image, slot, row, column] = logits[label].exp() / total
    return gate
