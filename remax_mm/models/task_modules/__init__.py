from .pq_similarity_assigner import PQSimilarityAssigner, class_similarity, mask_dice, mask_overlap
from .targets_from_samples import build_panoptic_targets, note_largest_values
from .targets_to_slots import MIN_WEIGHT, assign_targets_to_slots

__all__ = [
    'MIN_WEIGHT', 'assign_targets_to_slots', 'build_panoptic_targets', 'note_largest_values',
    'PQSimilarityAssigner', 'class_similarity', 'mask_dice', 'mask_overlap'
]
