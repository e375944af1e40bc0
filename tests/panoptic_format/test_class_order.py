"""From categories to labels: things first, by name, whatever the order of the file."""
import pytest

from remax_mm.panoptic_format import check_unique, list_some, map_categories, order_classes


def test_map_categories__labels_follow_the_class_list():
    categories = [
        dict(id=5, name='road', isthing=0),
        dict(id=90, name='car', isthing=1),
        dict(id=2, name='bus', isthing=1)
    ]
    assert map_categories(categories, ('bus', 'car'), ('road', ), 'x.json') == {5: 2, 90: 1, 2: 0}


def test_map_categories__one_kind_alone():
    things = [dict(id=8, name='car', isthing=True)]
    assert map_categories(things, ('car', ), (), 'x.json') == {8: 0}
    stuff = [dict(id=8, name='road', isthing=False)]
    assert map_categories(stuff, (), ('road', ), 'x.json') == {8: 0}


def test_order_classes__things_first_then_by_id():
    categories = [
        dict(id=9, name='sky', isthing=0, color=[1, 2, 3]),
        dict(id=7, name='hen', isthing=1, color=[4, 5, 6]),
        dict(id=2, name='lawn', isthing=False, color=[7, 8, 9]),
        dict(id=30, name='egg', isthing=True, color=[0, 0, 0]),
    ]
    expected = dict(
        classes=('hen', 'egg', 'lawn', 'sky'),
        thing_classes=('hen', 'egg'),
        stuff_classes=('lawn', 'sky'),
        palette=[(4, 5, 6), (0, 0, 0), (7, 8, 9), (1, 2, 3)])
    assert order_classes(categories, 'x.json') == order_classes(categories[::-1], 'x.json') == expected
    del categories[1]['color']
    assert 'palette' not in order_classes(categories, 'x.json')


def test_order_classes__kind_is_missing():
    with pytest.raises(ValueError, match="isthing.* every category of x.json, but 'hen' lack it"):
        order_classes([dict(id=1, name='hen')], 'x.json')


def test_check_unique__names_what_is_double():
    check_unique('name', 'categories', ['a', 'b'], 'x.json')
    with pytest.raises(
            ValueError, match="each name once in the categories for x.json, but 3, 'a' stand there"):
        check_unique('name', 'categories', ['a', 3, 'b', 3, 'a'], 'x.json')


def test_list_some__five_and_how_many_more():
    assert list_some([]) == 'none'
    assert list_some('gfedcba') == "'a', 'b', 'c', 'd', 'e' and 2 more"
