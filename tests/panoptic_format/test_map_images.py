"""Results keep the order of the images, in one process and in several."""
import os

import pytest

from remax_mm.panoptic_format import map_images


def _square_and_process(number):
    return number**2, os.getpid()


@pytest.mark.parametrize('processes', [1, 2])
def test_map_images__order_of_the_images(processes, capsys):
    found = list(map_images(_square_and_process, range(20), processes))
    assert [square for square, _ in found] == [number**2 for number in range(20)]
    assert (os.getpid() in {process for _, process in found}) == (processes == 1)
    printed = capsys.readouterr()
    assert printed.out == '' and '20/20' in printed.err


def test_map_images__no_process():
    with pytest.raises(ValueError, match='at least one process, but got 0'):
        list(map_images(_square_and_process, [1], 0))
