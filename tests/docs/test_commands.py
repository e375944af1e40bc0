"""Every command of the pages exists, and a test runs it or the page says why not."""
import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import textwrap
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import pytest

from remax_mm.apis.host_tools import list_tools
from tests.conftest import REPOSITORY
from tests.docs.code_blocks import PAGES, PLACEHOLDERS, read_blocks, split_commands

TOOLS = sorted([*(REPOSITORY / 'tools').rglob('*.py'), *(REPOSITORY / 'demo').glob('*.py')])
BLOCKS = [block for page in PAGES for block in read_blocks(page)]
MAKE_TARGETS = set(re.findall(r'^([a-z-]+):', (REPOSITORY / 'Makefile').read_text(), re.MULTILINE))
MAKE_VARIABLES = set(re.findall(r'^([A-Z_]+) \?=', (REPOSITORY / 'Makefile').read_text(), re.MULTILINE))
PATHS = re.compile(r'(?<![\w/.<-])((?:tools|configs|demo|docs|tests|remax_mm|requirements)/[\w./-]+\.\w+)\b')

# For each script of several processes, the tool that it starts and the arguments that the tool gets.
LAUNCHERS: Dict[str, Tuple[str, Callable[[List[str]], List[str]]]] = {
    'tools/dist_train.sh': ('tools/train.py', lambda given: given[:1] + given[2:]),
    'tools/dist_test.sh': ('tools/test.py', lambda given: given[:2] + given[3:]),
    'tools/slurm_train.sh': ('tools/train.py', lambda given: given[2:3] + given[4:]),
    'tools/slurm_test.sh': ('tools/test.py', lambda given: given[2:]),
}


def _name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY).with_suffix(''))


# ---- what is written exists


def test_pages__have_blocks():
    assert len(BLOCKS) > 20
    assert {block.language for block in BLOCKS} == {'bash', 'python'}


def test_blocks__that_are_not_run_have_a_reason():
    assert not [str(block) for block in BLOCKS if block.reason is not None and len(block.reason.split()) < 2]


def test_pages__files_exist():
    missing = [
        f'{page.relative_to(REPOSITORY)}: {path}' for page in PAGES
        for path in PATHS.findall(page.read_text(encoding='utf-8'))
        if not (REPOSITORY / path).exists() and path not in list_tools()
    ]
    assert not missing


@pytest.mark.parametrize('page', PAGES, ids=_name)
def test_commands__arguments_are_accepted(page, capsys):
    scripts = {str(block): block.runnable_text for block in read_blocks(page) if block.language == 'bash'}
    text = page.read_text(encoding='utf-8')
    scripts.update({
        f'{page.name}: `{code}`': code
        for code in re.findall(r'`((?:python|bash) [a-z]+/[^\s`]+ [^`]+)`', text)
    })
    _check_scripts(scripts, capsys)


@pytest.mark.parametrize('tool', TOOLS, ids=_name)
def test_commands__of_help_texts_are_accepted(tool, capsys):
    help_text = (ast.get_docstring(ast.parse(tool.read_text(encoding='utf-8')))
                 or '').replace('[', '').replace(']', '')
    commands = re.findall(r'^    (python (?:.*\\\n)*.*)$', help_text, re.MULTILINE)
    _check_scripts({f'{tool.name}: {command}': command for command in commands}, capsys)


def _check_scripts(scripts: Dict[str, str], capsys: pytest.CaptureFixture) -> None:
    for place, script in scripts.items():
        for words in split_commands(script.replace('$split', 'val')):
            _check_command(words, place, capsys)


def _check_command(words: List[str], place: str, capsys: pytest.CaptureFixture) -> None:
    program, *arguments = words
    if program == 'make':
        variables = {word.split('=')[0] for word in arguments if '=' in word}
        assert {word for word in arguments if '=' not in word} <= MAKE_TARGETS, f'{place}: {words}'
        assert variables <= MAKE_VARIABLES, f'{place}: {words}'
    elif program in ('python', 'bash') and arguments[0].startswith(('tools/', 'demo/')):
        script, given = arguments[0], arguments[1:]
        if script in LAUNCHERS:
            script, select = LAUNCHERS[script]
            given = select(given)
        assert (REPOSITORY / script).is_file(), f'{place}: no {script}'
        parse = _parser(script)
        if parse is not None:
            try:
                parse(given)
            except SystemExit as refused:
                assert not refused.code, f'{place}: {words}\n{capsys.readouterr().err}'
    elif program == 'python' and arguments[0] == '-m':
        assert find_spec(arguments[1].split('.')[0]), f'{place}: no module {arguments[1]}'


@lru_cache(maxsize=None)
def _parser(script: str):
    return runpy.run_path(str(REPOSITORY / script)).get('parse_args')


# ---- what is written runs

_LOADERS = [
    f'{split}_dataloader.{option}' for split in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]
_TRAIN_OPTIONS = [
    *_LOADERS, 'train_dataloader.batch_size=2', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
    'default_hooks.checkpoint.interval=2', 'default_hooks.logger.interval=1'
]
# Arguments that make a tool small, added to those of the page.
SMALL: Dict[str, List[str]] = {
    'tools/train.py': ['--cfg-options', *_TRAIN_OPTIONS],
    'tools/test.py': ['--cfg-options', *_LOADERS],
    'tools/dataset_converters/make_mini_panoptic.py': ['--train', '8', '--val', '4'],
    'tools/analysis_tools/benchmark_fusion.py': ['--sizes', '65', '--rounds', '1', '--repeats', '1'],
    'tools/analysis_tools/benchmark_panoptic_quality.py':
    ['--sizes', '48x64', '--images', '2', '--repeats', '1'],
    'tools/analysis_tools/benchmark_pipeline.py': ['--num-images', '2', '--repeats', '1', '--crops', '641'],
    'tools/analysis_tools/benchmark_relaxations.py':
    ['--rounds', '1', '--num-batches', '1', '--cfg-options', 'train_dataloader.batch_size=2'],
    'tools/analysis_tools/compare_relaxations.py':
    ['--iterations', '2', '--seeds', '1', '--cfg-options', *_TRAIN_OPTIONS],
    'tools/analysis_tools/draw_relaxations.py': ['--cfg-options', *_TRAIN_OPTIONS],
    'tools/analysis_tools/loss_balance.py': ['--num-batches', '1', '--cfg-options', *_TRAIN_OPTIONS],
}

# In the place of python, and of torchrun, which starts one process.
PYTHON = '''
    #!{python}
    import json, os, sys

    name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
    launcher = ['-m', 'torch.distributed.run', '--nproc_per_node=1'] if name == 'torchrun' else []
    while name == 'torchrun' and arguments[0].startswith('--'):
        arguments = arguments[1:]
    script = os.path.relpath(arguments[0]) if arguments else ''
    small = json.loads({small!r}).get(script, [])
    if '--cfg-options' in small and '--cfg-options' in arguments:
        index = small.index('--cfg-options')
        place = arguments.index('--cfg-options') + 1
        arguments[place:place] = small[index + 1:]
        small = small[:index]
    os.execv({python!r}, [{python!r}, *launcher, *arguments, *small])
'''


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A checkout with a small drawn dataset and the checkpoint of a short training."""
    folder = tmp_path_factory.mktemp('commands')
    for path in REPOSITORY.iterdir():
        if path.name not in ('data', 'work_dirs', 'outputs', 'checkpoints') and path.name[0] != '.':
            (folder / path.name).symlink_to(path)
    for name in ('python', 'torchrun'):
        program = folder / '.bin' / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            textwrap.dedent(PYTHON).lstrip().format(python=sys.executable, small=json.dumps(SMALL)))
        program.chmod(0o755)

    _run(folder, 'python tools/dataset_converters/make_mini_panoptic.py data/mini_panoptic')
    _run(folder, f'python tools/train.py {PLACEHOLDERS["CONFIG"]} --work-dir work_dirs/demo')
    # The name that the pages give to the checkpoint of the demo
    shutil.copy(folder / 'work_dirs/demo/iter_2.pth', folder / 'work_dirs/demo/iter_1000.pth')
    (folder / 'checkpoints').mkdir()
    shutil.copy(folder / 'work_dirs/demo/iter_2.pth', folder / PLACEHOLDERS['CHECKPOINT'])
    return folder


def _run(folder: Path, script: str, shell: str = 'bash') -> None:
    environment = dict(
        os.environ,
        PATH=f'{folder / ".bin"}:{os.environ["PATH"]}',
        PYTHONPATH=str(REPOSITORY),
        OMP_NUM_THREADS='1')
    command = ['bash', '-euo', 'pipefail', '-c', script] if shell == 'bash' else ['python', '-c', script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f'{script}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}'


def _runnable() -> List[Path]:
    """All pages but docs/own_data.md, which has a test of its own."""
    return [
        page for page in PAGES
        if page.name != 'own_data.md' and any(block.reason is None for block in read_blocks(page))
    ]


@pytest.mark.slow
@pytest.mark.parametrize('page', _runnable(), ids=_name)
def test_commands__run(page, folder):
    blocks = [block for block in read_blocks(page) if block.reason is None]
    for block in blocks:
        if block.language == 'bash':
            _run(folder, block.runnable_text)
    script = '\n'.join(block.runnable_text for block in blocks if block.language == 'python')
    if script:
        _run(folder, script, 'python')
