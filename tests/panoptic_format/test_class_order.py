"""From categories to labels: things first, matched by name, independent of the order of the file."""
from remax_mm.panoptic_format import map_categories, order_classes
from remax_mm.panoptic_format.class_order import sort_categories

CATEGORIES = [
    dict(id=9, name='sky', isthing=0, color=[1, 2, 3]),
    dict(id=7, name='hen', isthing=1, color=[4, 5, 6]),
    dict(id=2, name='lawn', isthing=False, color=[7, 8, 9]),
    dict(id=30, name='egg', isthing=True, color=[0, 0, 0]),
]


def test_sort_categories__things_first_then_by_id():
    for categories in (CATEGORIES, CATEGORIES[::-1]):
        assert [entry['id'] for entry in sort_categories(categories)] == [7, 30, 2, 9]


def test_order_classes__metainfo_independent_of_the_order():
    expected = dict(
        classes=('hen', 'egg', 'lawn', 'sky'),
        thing_classes=('hen', 'egg'),
        stuff_classes=('lawn', 'sky'),
        palette=[(4, 5, 6), (0, 0, 0), (7, 8, 9), (1, 2, 3)])
    assert order_classes(CATEGORIES) == order_classes(CATEGORIES[::-1]) == expected
    without_color = [*CATEGORIES[:3], dict(id=30, name='egg', isthing=True)]
    assert 'palette' not in order_classes(without_color)


def test_map_categories__labels_follow_the_class_list():
    categories = [
        dict(id=5, name='road', isthing=0),
        dict(id=90, name='car', isthing=1),
        dict(id=2, name='bus', isthing=1)
    ]
    assert map_categories(categories, ('bus', 'car'), ('road', ), 'x.json') == {5: 2, 90: 1, 2: 0}


def test_map_categories__only_things_or_only_stuff():
    things = [dict(id=8, name='car', isthing=True)]
    assert map_categories(things, ('car', ), (), 'x.json') == {8: 0}
    stuff = [dict(id=8, name='road', isthing=False)]
    assert map_categories(stuff, (), ('road', ), 'x.json') == {8: 0}
