import json

import numpy as np
import pytest
import torch

from tests.reference_weights import reference_weight


def test_reference_weight__is_what_the_reference_lists(reference_dir):
    spec = json.loads((reference_dir / 'head_weights_spec.json').read_text())
    small = {key: entry for key, entry in spec.items() if np.prod(entry['shape']) < 100_000}
    assert len(small) > 100
    for key, entry in small.items():
        weight = reference_weight(key, entry['shape'])
        assert list(weight.shape) == entry['shape'], key
        first = weight.flatten()[:3].double()
        expected = torch.tensor(entry['first3'], dtype=torch.float64)
        torch.testing.assert_close(first, expected, rtol=1e-6, atol=0, msg=key)


def test_reference_weight__rejects_an_unknown_rule():
    with pytest.raises(ValueError, match="one of .*'B', 'C'"):
        reference_weight('backbone.stem.conv1.weight', (1, ), rule='A')
