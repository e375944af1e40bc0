import pytest
import torch
import torch.nn.functional as F

from remax_mm.models.heads import mask_rows
from remax_mm.models.heads.mask_rows import (FlippedRows, MaskRows, ResizedRows, SelectedRows, SoftmaxRows,
                                             as_rows, restored_rows)
from tests.whole_image_fusion import restore_size


@pytest.fixture(autouse=True)
def _smallest_strips(monkeypatch):
    monkeypatch.setitem(mask_rows.STRIP_ELEMENTS, 'cpu', 1)
    monkeypatch.setitem(mask_rows.RESIZED_ELEMENTS, 'cpu', 2**12)


@pytest.fixture
def _one_thread():
    """With several threads, the last bits of a softmax depend on how its pixels are divided among them."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def _same_bits(found, expected):
    """Also the sign of zero."""
    return found.dtype == expected.dtype and torch.equal(found.view(torch.int32), expected.view(torch.int32))


def _resize(x, size):
    return F.interpolate(x[None], size, mode='bilinear', align_corners=True)[0]


@pytest.mark.parametrize('num_slots', [1, 5, 40])
@pytest.mark.parametrize(
    'size, new_size',
    [
        ((33, 41), (129, 161)),  # as mask logits at stride 4
        ((33, 41), (65, 63)),  # the smallest that the usual kernel resizes
        ((33, 41), (65, 64)),
        ((9, 17), (33, 65)),
        ((37, 51), (211, 97)),
        ((64, 48), (127, 200)),  # twice the distance of rows
        ((44, 48), (130, 200)),  # three times
        ((24, 48), (116, 100)),  # five times
        ((64, 48), (150, 200)),
        ((201, 143), (199, 150)),
        ((201, 143), (60, 71)),  # smaller
        ((201, 143), (3, 5)),
        ((50, 70), (50, 130)),  # one axis only
        ((50, 70), (113, 70)),
        ((1, 1), (100, 131)),
        ((1, 90), (77, 121)),
        ((90, 1), (1, 151)),
        ((7, 400), (180, 1)),
    ])
def test_resized_rows__equal_interpolate_bit_by_bit(size, new_size, num_slots):
    x = 10 * torch.randn(num_slots, *size)
    rows = mask_rows.resized_rows(MaskRows(x), new_size)
    expected = _resize(x, new_size)
    assert rows.shape == (num_slots, *new_size)
    assert _same_bits(rows.whole(), expected)
    assert all(_same_bits(values, expected[:, strip]) for strip, values in rows)
    for start in (0, new_size[0] // 3, new_size[0] - 1):
        assert _same_bits(rows.rows(start, new_size[0]), expected[:, start:])
        assert torch.equal(rows.largest(start, new_size[0]), expected[:, start:].amax(0))
        assert _same_bits(rows.rows(start, start + 1), expected[:, start:start + 1])


@pytest.mark.parametrize(
    'size, input_size, image_size, output_size',
    [
        ((33, 41), (129, 161), (129, 161), None),
        ((33, 41), (129, 161), (97, 160), None),
        ((33, 41), (129, 161), (97, 161), (240, 399)),  # padding is cropped, then resized
        ((33, 41), (129, 161), (129, 107), (427, 354)),
        ((33, 41), (129, 161), (100, 161), (50, 80)),
        ((17, 9), (65, 33), (61, 31), (400, 203)),  # one kernel after the other
        ((33, 41), (129, 161), (129, 161), (61, 67)),
        ((129, 161), (129, 161), (100, 150), (101, 150)),
        ((129, 161), (129, 161), (129, 161), (129, 161)),
    ])
def test_restored_rows__equal_restore_size_bit_by_bit(size, input_size, image_size, output_size):
    x = 10 * torch.randn(7, *size)
    expected = _resize(x, input_size)[:, :image_size[0], :image_size[1]]
    if output_size is not None:
        expected = _resize(expected, output_size)
    assert _same_bits(restored_rows(x, input_size, image_size, output_size).whole(), expected.contiguous())
    assert _same_bits(
        restore_size(x, input_size, image_size, output_size).contiguous(), expected.contiguous())


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64])
def test_restored_rows__work_in_float32(dtype):
    x = torch.randn(3, 33, 41, dtype=dtype)
    rows = restored_rows(x, (129, 161), (129, 150), (140, 150))
    assert _same_bits(rows.whole(), restored_rows(x.float(), (129, 161), (129, 150), (140, 150)).whole())


@pytest.mark.parametrize('shape', [(3, 100, 131), (128, 50, 33), (1, 16, 7), (2, 17, 1)])
@pytest.mark.usefixtures('_one_thread')
def test_softmax_rows__equal_softmax_bit_by_bit(shape):
    x = 5 * torch.randn(shape)
    assert _same_bits(SoftmaxRows(MaskRows(x)).whole(), x.softmax(dim=0))


@pytest.mark.parametrize('axes', [(-1, ), (-2, ), (-2, -1)])
def test_flipped_rows__equal_flip(axes):
    x = torch.randn(3, 37, 20)
    assert torch.equal(FlippedRows(MaskRows(x), axes).whole(), x.flip(axes))


def test_largest__of_all_slots():
    x = torch.randn(9, 33, 41)
    rows = restored_rows(x, (129, 161), (100, 150), None)
    for found, expected in ((rows.largest(3, 50), rows.whole().amax(0)[3:50]), (MaskRows(x).largest(3, 20),
                                                                                x.amax(0)[3:20])):
        assert torch.equal(found, expected)


def test_of_slots__rows_of_these_slots():
    x, slots = torch.randn(6, 33, 41), torch.tensor([4, 0, 5])
    rows = restored_rows(x, (129, 161), (100, 161), (120, 177))
    selected = rows.of_slots(slots)
    assert selected.shape == (3, 120, 177) and _same_bits(selected.whole(), rows.whole()[slots])
    assert isinstance(selected, ResizedRows)  # only these slots are resized
    # A softmax is over all slots of its source.
    assert torch.equal(
        SoftmaxRows(MaskRows(x)).of_slots(slots).whole(),
        SoftmaxRows(MaskRows(x)).whole()[slots])
    assert isinstance(MaskRows(x).of_slots(slots), SelectedRows)
    assert rows.of_slots(slots[:0]).whole().shape == (0, 120, 177)


@pytest.mark.parametrize('num_elements, step', [(1, 16), (3 * 5 * 47, 32), (3 * 5 * 48, 48), (10**6, 48)])
def test_mask_rows__strips_cover_each_row_once(monkeypatch, num_elements, step):
    monkeypatch.setitem(mask_rows.STRIP_ELEMENTS, 'cpu', num_elements)
    x = torch.randn(3, 45, 5)
    strips = list(as_rows(x))
    assert [strip for strip, _ in strips] == [slice(i, min(i + step, 45)) for i in range(0, 45, step)]
    assert torch.equal(torch.cat([values for _, values in strips], dim=1), x)
    rows = MaskRows(x)
    assert as_rows(rows) is rows
