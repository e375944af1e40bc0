"""Names of parameters here and in the public kMaX-DeepLab PyTorch code, as its converter knows them."""
import sys
from pathlib import Path
from typing import Dict, Iterable

CONVERTERS = Path(__file__).resolve().parents[1] / 'tools' / 'model_converters'
sys.path.insert(0, str(CONVERTERS))

from kmax_release import name_here  # noqa: E402
from kmax_to_remax_mm import convert_file  # noqa: E402, F401


def reference_names(keys: Iterable[str], listed: Iterable[str], prefix: str = '') -> Dict[str, str]:
    """Our key -> the reference's key.

    Args:
        keys: of a module of ours; those that the reference lacks are left out.
        listed: all keys of the reference's model.
        prefix: what stands before ``keys`` in a ``MaskTransformer``, such as ``panoptic_head.``.
    """
    known = {name_here(theirs): theirs for theirs in listed}
    return {key: known[prefix + key] for key in keys if prefix + key in known}
