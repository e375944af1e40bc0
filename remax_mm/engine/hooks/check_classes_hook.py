"""Whether the model and the datasets mean the same classes."""
from itertools import zip_longest
from typing import Mapping, Tuple

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

CLASS_LISTS = ('classes', 'thing_classes', 'stuff_classes')


def check_class_counts(model: nn.Module, metainfo: Mapping, source: str) -> None:
    """Compare the parts of a model with the classes of a dataset.

    Args:
        model: Its parts with ``num_things_classes`` or ``num_stuff_classes`` are looked at, losses too.
        metainfo: Of the dataset, with ``thing_classes`` and ``stuff_classes``.
        source: Where its classes come from, for the message.

    Raises:
        ValueError: the numbers differ.
    """
    things, stuff = len(metainfo['thing_classes']), len(metainfo['stuff_classes'])
    expected = dict(num_things_classes=things, num_stuff_classes=stuff)
    for name, module in model.named_modules():
        found = {key: getattr(module, key) for key in expected if hasattr(module, key)}
        if any(count != expected[key] for key, count in found.items()):
            raise ValueError(
                f'Expected a model for the {things} thing and {stuff} stuff classes of {source}, '
                f'but `{name}` has {" and ".join(f"{key}={count}" for key, count in found.items())}; set '
                f'num_things_classes={things} and num_stuff_classes={stuff} wherever the config names them')


@HOOKS.register_module()
class CheckClassesHook(Hook):
    """Stop before the first iteration if model, training and validation set disagree on the classes.

    mmdet's ``NumClassCheckHook`` compares the number of all classes alone, and not the datasets with each
    other.

    Raises:
        ValueError: the numbers of things or stuff differ, or the names or their order, or a dataset does not
            name its things and stuff.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the model with the training set, and that with the validation set."""
        train, train_source = self._check(runner, runner.train_dataloader.dataset)
        if runner.val_loop is None:
            return
        val, val_source = self._check(runner, runner.val_loop.dataloader.dataset)
        for label, (one, other) in enumerate(zip_longest(train['classes'], val['classes'])):
            if one != other:
                raise ValueError(f'Expected {val_source} to have the classes of {train_source} in the same '
                                 f'order, but label {label} is {other!r} there and {one!r} here')

    def before_val(self, runner: Runner) -> None:
        """Compare the model with the validation set."""
        self._check(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Compare the model with the test set."""
        self._check(runner, runner.test_dataloader.dataset)

    def _check(self, runner: Runner, dataset: Dataset) -> Tuple[Mapping, str]:
        """Check one dataset; its metainfo, and its file or the name of its class."""
        metainfo, source = dataset.metainfo, getattr(dataset, 'ann_file', '') or type(dataset).__name__
        missing = [key for key in CLASS_LISTS if key not in metainfo]
        if missing:
            raise ValueError(f'Expected {", ".join(CLASS_LISTS)} in the metainfo of {source}, '
                             f'but it lacks {", ".join(missing)}')
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_class_counts(model, metainfo, source)
        return metainfo, source
