from .pq_similarity_assigner import PQSimilarityAssigner, class_similarity, mask_similarity, match_segments

__all__ = ['PQSimilarityAssigner', 'class_similarity', 'mask_similarity', 'match_segments']
