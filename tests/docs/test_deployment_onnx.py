"""The commands of docs/deployment_onnx.md fit the tools."""
import re
import runpy
import shlex

import pytest

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / 'docs' / 'deployment_onnx.md').read_text()
COMMANDS = re.findall(r'^python (tools/deployment/.+)$', PAGE, re.MULTILINE)


def test_page__has_a_command_of_each_tool():
    named = {command.split()[0] for command in COMMANDS}
    tools = REPOSITORY.glob('tools/deployment/*_onnx.py')
    assert named == {str(path.relative_to(REPOSITORY)) for path in tools}


@pytest.mark.parametrize('command', COMMANDS)
def test_page__commands_parse(command):
    tool, *arguments = shlex.split(command)
    args = runpy.run_path(str(REPOSITORY / tool))['parse_args'](arguments)
    assert str(args.config) == 'CONFIG'


def test_page__options_exist():
    text = (REPOSITORY / 'tools' / 'deployment' / 'export_onnx.py').read_text()
    table = PAGE.split('| option | effect |')[1].split('\n\n')[0]
    options = re.findall(r'^\| `(--[\w-]+)', table, re.MULTILINE)
    assert len(options) >= 6 and all(f"'{option}'" in text for option in options)
