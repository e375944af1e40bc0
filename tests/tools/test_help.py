"""The argument descriptions of all tools have one style."""
import argparse
import re
import runpy

import pytest

from tests.conftest import REPOSITORY

SCRIPTS = sorted([*(REPOSITORY / 'tools').rglob('*.py'), *(REPOSITORY / 'demo').glob('*.py')])
TOOLS = [path for path in SCRIPTS if 'def parse_args' in path.read_text()]


@pytest.fixture(params=TOOLS, ids=lambda path: path.stem)
def parser(request, monkeypatch):
    """The parser of a tool."""
    parsers = []

    def keep(self, *args, **kwargs):
        parsers.append(self)
        raise SystemExit(0)

    parse_args = runpy.run_path(str(request.param))['parse_args']
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', keep)
    with pytest.raises(SystemExit):
        parse_args([])
    return parsers[0]


def _arguments(parser):
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def test_tools__only_those_of_mmdet_have_no_parser():
    assert [path.stem for path in SCRIPTS if path not in TOOLS] == ['analyze_logs', 'get_flops']


def test_help__every_argument_is_described(parser):
    assert not [action.dest for action in _arguments(parser) if not action.help]
    assert parser.description and parser.format_help()


def test_help__lower_case_start_and_no_period(parser):
    # A capital is right for names such as COCO and JSON, which have another one.
    wrong = [a.help for a in _arguments(parser) if re.match(r'[A-Z][a-z ]', a.help) or a.help.endswith('.')]
    assert not wrong


def test_help__says_the_default(parser):
    for action in _arguments(parser):
        has_default = action.default not in (None, False, []) and not action.required
        text = action.help % dict(vars(action), prog=parser.prog)
        if has_default:
            assert re.search(r'\(default: .+\)$', text), text
        assert 'default' not in re.sub(r'\(default: [^()]+\)$', '', text), text
