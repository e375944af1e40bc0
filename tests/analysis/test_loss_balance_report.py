"""The names of the runs, and the files with their loss balance."""
import json

import numpy as np
import pytest
import torch

from remax_mm.analysis.loss_balance import LossParts
from remax_mm.analysis.loss_balance_report import BalanceRun, logarithmic_edges, name_runs, write_loss_balance


@pytest.fixture
def files(tmp_path):
    """Paths of two configs and a checkpoint."""
    paths = [str(tmp_path / name) for name in ('a.py', 'b.py', 'iter_7.pth')]
    for path in paths:
        open(path, 'w').close()
    return paths


def test_name_runs__names_of_config_and_checkpoint(files):
    first, second, checkpoint = files
    assert name_runs([first, second]) == {
        'a, untrained': BalanceRun(first, None),
        'b, untrained': BalanceRun(second, None)
    }
    assert name_runs([first, first], ['none', checkpoint]) == {
        'a, untrained': BalanceRun(first, None),
        'a iter_7': BalanceRun(first, checkpoint)
    }
    url = 'http://host/b.pth'
    assert name_runs([first], [url], ['mine']) == dict(mine=BalanceRun(first, url))


def test_name_runs__bad_input(files):
    first, second, checkpoint = files
    with pytest.raises(
            ValueError, match='--checkpoints to have one entry for each of the 2 configs, but got 1'):
        name_runs([first, second], [checkpoint])
    with pytest.raises(ValueError, match='--labels to have one entry for each of the 1 configs, but got 2'):
        name_runs([first], labels=['x', 'y'])
    with pytest.raises(ValueError, match='different names'):
        name_runs([first, first])
    for config, weights in (('missing.py', checkpoint), (first, 'missing.pth')):
        with pytest.raises(FileNotFoundError, match='missing'):
            name_runs([config], [weights])


def test_logarithmic_edges__include_all_values():
    edges = logarithmic_edges([torch.tensor([0.3, 7.]), torch.tensor([240., float('inf'), 0., float('nan')])])
    np.testing.assert_allclose(edges[[0, 10, -1]], [.1, 1, 1000])
    assert len(edges) == 41
    np.testing.assert_allclose(logarithmic_edges([torch.zeros(2)])[[0, -1]], [1, 10])


def test_write_loss_balance__by_hand(tmp_path):
    # Ratios 3 and 50; the last image has no labeled pixel.
    parts = LossParts(
        torch.tensor([3., 100., 0.], dtype=torch.float64), torch.tensor([1., 2., 0.], dtype=torch.float64))
    write_loss_balance({
        'a': dict(final=parts),
        'b': {
            'final': parts,
            'd0.unrelaxed': parts
        }
    }, tmp_path / 'new')
    numbers = json.loads((tmp_path / 'new' / 'loss_balance.json').read_text())
    np.testing.assert_allclose(np.array(numbers['ratio_edges'])[[0, 10, 20]], [1, 10, 100])
    assert {
        run: list(outputs)
        for run, outputs in numbers['runs'].items()
    } == dict(
        a=['final'], b=['final', 'd0.unrelaxed'])
    final = numbers['runs']['a']['final']
    # log10 of 3 and 50 is 0.477 and 1.699.
    assert [index for index, count in enumerate(final['histogram']) if count] == [4, 16]
    assert sum(final['histogram']) == final['summary']['images'] == 2
    assert final['false_positive'] == [3, 100, 0] and final['false_negative'] == [1, 2, 0]
    assert (tmp_path / 'new' / 'loss_balance.png').read_bytes()[:4] == b'\x89PNG'
