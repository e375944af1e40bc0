"""The reader of the pages finds every command."""
from pathlib import Path

from tests.docs.code_blocks import read_blocks, split_commands

PAGE = '''# Page

```bash
python a.py CONFIG   # a comment
```

<!-- not run: needs COCO -->

```bash
make x
```

```text
not a command
```

```python
print('CHECKPOINT', MY_CONFIG)
```
'''

SCRIPT = r'''
# a comment
for split in train val; do
  python tools/a.py --images data/$split \
      --void 255 --out "b $split"
done
NNODES=2 PORT=29500 bash tools/b.sh CONFIG 8 > log.txt
python c.py $(cat last) && make demo A=1 | cat
'''


def test_read_blocks(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text(PAGE)
    runs, not_run, python = read_blocks(page)
    assert (runs.language, runs.line, runs.reason) == ('bash', 4, None)
    assert runs.runnable_text.startswith('python a.py configs/mini/')
    assert (not_run.text, not_run.reason) == ('make x\n', 'needs COCO')
    # Only whole words are placeholders.
    assert python.runnable_text == "print('checkpoints/model.pth', MY_CONFIG)\n"


def test_split_commands() -> None:
    assert list(split_commands(SCRIPT)) == [
        ['for', 'split', 'in', 'train', 'val'],
        ['python', 'tools/a.py', '--images', 'data/$split', '--void', '255', '--out', 'b $split'],
        ['done'],
        ['bash', 'tools/b.sh', 'CONFIG', '8'],
        ['python', 'c.py', 'SUBSTITUTION'],
        ['make', 'demo', 'A=1'],
        ['cat'],
    ]
