from .kmax_transformer_decoder import KMaXTransformerDecoder

__all__ = ['KMaXTransformerDecoder']
