"""Names of parameters in our modules and in the public kMaX-DeepLab PyTorch code."""
from typing import Dict, Iterable

from remax_mm.model_converters.kmax_release import rename


def reference_names(keys: Iterable[str], listed: Iterable[str], prefix: str = '') -> Dict[str, str]:
    """Our key -> the reference's key.

    Args:
        keys: Keys of one of our modules; those that the reference lacks are left out.
        listed: All keys of the reference's model.
        prefix: Prefix of ``keys`` in a ``MaskTransformer``, such as ``panoptic_head.``.
    """
    known = {rename(theirs): theirs for theirs in listed}
    return {key: known[prefix + key] for key in keys if prefix + key in known}
