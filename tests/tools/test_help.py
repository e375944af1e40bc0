"""The argument descriptions of all tools have one style, and are shown at once."""
import argparse
import json
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec

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


# Packages that take longer to import than a user waits for a help text.
HEAVY = ('torch', 'mmdet', 'mmcv', 'mmseg', 'mmengine.runner', 'scipy', 'matplotlib', 'pandas', 'seaborn')
SHOW_HELP = '''
import io, json, runpy, sys
from contextlib import redirect_stdout

heavy, *scripts = json.loads(sys.argv[1])
for script in scripts:
    sys.argv = [script, '--help']
    shown = io.StringIO()
    try:
        with redirect_stdout(shown):
            runpy.run_path(script, run_name='__main__')
    except SystemExit as done:
        assert not done.code, f'{script}: {done.code}'
    assert 'usage: ' in shown.getvalue(), f'{script} shows no help'
    loaded = [name for name in heavy if name in sys.modules]
    assert not loaded, f'{script} imports {loaded} before it parses its arguments'
'''


def test_help__comes_before_the_heavy_imports():
    scripts = [str(path) for path in SCRIPTS if path.stem != 'analyze_logs' or find_spec('seaborn')]
    command = [sys.executable, '-c', SHOW_HELP, json.dumps([HEAVY, *scripts])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-1000:]
