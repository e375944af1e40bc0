"""The bash and Python blocks of the pages, and the commands in them."""
import re
import shlex
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional

from tests.conftest import REPOSITORY

PAGES = sorted(
    [*REPOSITORY.glob('*.md'), *(REPOSITORY / 'docs').rglob('*.md'), *(REPOSITORY / 'configs').rglob('*.md')])

# What the placeholders of the pages stand for when they are run, below the folder of the run.
PLACEHOLDERS = dict(
    CONFIG='configs/mini/remax_mnv3-s_1xb8-1k_mini-129.py',
    CHECKPOINT='checkpoints/model.pth',
    IMAGE='data/mini_panoptic/images/val/000000000001.jpg',
    FOLDER='data/mini_panoptic/images/val',
    OUT_DIR='outputs/placeholder',
    WORK_DIR='work_dirs/placeholder')

BLOCK = re.compile(
    r'(?:<!-- not run: *(?P<reason>.*?) *-->\n+)?^```(?P<language>bash|python)\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page: file with the block.
        line: number of its first line.
        language: ``bash`` or ``python``.
        text: the lines between the fences.
        reason: why no test runs it, None if a test does.
    """
    page: Path
    line: int
    language: str
    text: str
    reason: Optional[str]

    def __str__(self) -> str:
        return f'{self.page.relative_to(REPOSITORY)}:{self.line}'

    @property
    def runnable_text(self) -> str:
        """The text with values for the placeholders."""
        names = '|'.join(PLACEHOLDERS)
        return re.sub(rf'\b({names})\b', lambda name: PLACEHOLDERS[name[1]], self.text)


def read_blocks(page: Path) -> List[Block]:
    """All bash and Python blocks of a page."""
    text = page.read_text(encoding='utf-8')
    return [
        Block(page,
              text.count('\n', 0, found.start('text')) + 1, found['language'], found['text'], found['reason'])
        for found in BLOCK.finditer(text)
    ]


def split_commands(script: str) -> Iterator[List[str]]:
    """The words of each simple command of a bash script, without assignments, comments and redirections.

    Variables and command substitutions stay as they are written.
    """
    script = re.sub(r'\\\n', ' ', script)
    script = re.sub(r'\$\([^()]*\)', 'SUBSTITUTION', script)
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=';&|<>')
        lexer.whitespace_split = True
        words: List[str] = []
        for word in [*lexer, ';']:
            if set(word) <= set(';&|'):
                yield from _simple_command(words)
                words = []
            else:
                words.append(word)


def _simple_command(words: List[str]) -> Iterator[List[str]]:
    redirections = [index for index, word in enumerate(words) if set(word) <= set('<>')]
    words = words[:redirections[0]] if redirections else words
    while words and (re.match(r'[A-Za-z_]+=', words[0]) or words[0] in ('do', 'then', 'exec')):
        words = words[1:]
    if words:
        yield words
