"""Hook of mkdocs: files of the repository outside ``docs`` that a page links to become pages of the site.

The pages link to them by relative paths, such as ``../configs/…``, which also work on a code host.
"""
import posixpath
import re
from pathlib import Path
from typing import Iterator, List, Tuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PREFIX = 'source/'
LINK = re.compile(r'(?<=\]\()(?![a-z]+:|#)(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=\))')
LANGUAGES = {'.py': 'python', '.sh': 'bash', '.yml': 'yaml', '.cfg': 'ini'}
HEAD = '---\nsearch:\n  exclude: true\n---\n\n'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file and folder that a page links to, and for those that these pages link to."""
    root = Path(config.docs_dir).parent
    waiting: List[Tuple[str, str]] = [('docs/' + file.src_uri, file.content_string)
                                      for file in files.documentation_pages()]
    while waiting:
        path, text = waiting.pop()
        for target in _linked_paths(path, text):
            uri = _uri(root, target)
            if target.startswith('docs/') or not (root / target).exists() or files.get_file_from_path(uri):
                continue
            content = _page_content(root, target)
            files.append(File.generated(config, uri, content=content))
            waiting.append((target + '/.' * (root / target).is_dir(), content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave ``docs`` lead to these pages, and links of these pages to the others."""
    root = Path(config.docs_dir).parent
    here = page.file.src_uri
    path = here[len(PREFIX):-len('.md')] if here.startswith(PREFIX) else 'docs/' + here

    def rewrite(link: 're.Match[str]') -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link['target']))
        inside = target.startswith('docs/')
        if (inside and not here.startswith(PREFIX)) or not (root / target).exists():
            return link[0]
        uri = target[len('docs/'):] if inside else _uri(root, target)
        return posixpath.relpath(uri, posixpath.dirname(here)) + (link['anchor'] or '')

    return LINK.sub(rewrite, markdown)


def _linked_paths(path: str, text: str) -> Iterator[str]:
    for link in LINK.finditer(text):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(path), link['target']))


def _uri(root: Path, target: str) -> str:
    return f'{PREFIX}{target}/index.md' if (root / target).is_dir() else f'{PREFIX}{target}.md'


def _page_content(root: Path, target: str) -> str:
    path = root / target
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir() if entry.suffix in ('.py', '.md', '.yml'))
        return f'{HEAD}# {target}\n\n' + '\n'.join(f'- [{name}]({name})' for name in names)
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.md':
        return HEAD + text
    return f'{HEAD}# {path.name}\n\n`{target}`\n\n````{LANGUAGES.get(path.suffix, "text")}\n{text}\n````\n'
