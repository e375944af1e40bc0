"""A web page that segments photos, for one's own machine; needs gradio.

A visitor can reach nothing of the machine but the photos and results of the page: gradio serves the files of
a folder that is empty at the start and deleted at the end, and reads no other file for a visitor.
"""
import html
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

from .input_images import IMAGE_SUFFIXES
from .panoptic_inferencer import PanopticInferencer
from .web_photo import (TABLE_HEADER, Limits, Photo, PhotoSegmenter, choose_segments, count_classes,
                        list_segments, write_downloads)

try:
    import gradio as gr
except ImportError as error:
    raise ImportError("The web page needs gradio: `pip install 'remax_mm[web]'`") from error

HOUR = 3600


class WebPage:
    """The page of a model, one in a process.

    Args:
        inferencer: The model.
        limits: What a visitor may ask for.
        min_score: Initial score threshold, in [0, 1].

    Attributes:
        blocks: The page as gradio has it.
        folder: Folder of all photos and results, deleted by :meth:`close`.
    """

    def __init__(self,
                 inferencer: PanopticInferencer,
                 limits: Limits = Limits(),
                 min_score: float = 0.) -> None:
        self.inferencer = inferencer
        self.limits = limits
        self.segmenter = PhotoSegmenter(inferencer, limits)
        self.folder = tempfile.mkdtemp(prefix='remax_mm_web_')
        # Where gradio keeps uploads and results; by default, all of its pages on a machine share a folder.
        os.environ['GRADIO_TEMP_DIR'] = str(Path(self.folder) / 'gradio')
        self.blocks = self._build(min_score)

    def launch(self, host: str = '127.0.0.1', port: Optional[int] = None, block: bool = True) -> str:
        """Start the server.

        Args:
            host: Address to listen at; ``0.0.0.0`` lets other machines in.
            port: Its port, a free one from 7860 on if None.
            block: Whether to wait until the server is stopped by Ctrl-C.

        Returns:
            URL of the page.
        """
        fonts = ['system-ui', 'sans-serif']  # gradio's own ones come from another server
        _, url, _ = self.blocks.launch(
            server_name=host,
            server_port=port,
            max_file_size=self.limits.num_bytes,
            state_session_capacity=32,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            footer_links=[],
            enable_monitoring=False,
            css='#overlay img { width: 100%; height: 100%; object-fit: contain }',
            theme=gr.themes.Default(font=fonts, font_mono=['monospace']))
        if block:
            print(f'The page is at {url} (Ctrl-C stops it)', flush=True)
            self.blocks.block_thread()
        return url

    def close(self) -> None:
        """Stop the server and delete all photos and results."""
        self.blocks.close(verbose=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _build(self, min_score: float) -> gr.Blocks:
        """Lay out the page and connect its parts."""
        with gr.Blocks(
                title='Panoptic segmentation', analytics_enabled=False, delete_cache=(HOUR, HOUR)) as blocks:
            gr.Markdown('# Panoptic segmentation\nDrop a photo: each pixel gets a class, and each thing its '
                        'own number.')
            photo = gr.State(None, time_to_live=HOUR, delete_callback=_delete_downloads)
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    upload = gr.File(label='Photo', file_types=[*IMAGE_SUFFIXES], elem_id='photo', height=140)
                    controls = _add_controls(min_score)
                with gr.Column(scale=3):
                    shown = _add_results()
            self._connect(photo, upload, controls, shown)
        return blocks.queue(max_size=16, api_open=False)

    def _connect(self, photo: gr.State, upload: gr.File, controls: List[Any], shown: List[Any]) -> None:
        """Say what happens when a photo is dropped or removed, and when a control is changed."""
        hidden: Any = dict(api_visibility='private')
        choices, results = [photo, *controls], [photo, controls[0], *shown]
        # The results of the photo before disappear first, because a bad photo has none.
        cleared = upload.upload(self._clear, photo, results, **hidden)
        segmented = cleared.then(self._segment, upload, results[:2], concurrency_limit=4, **hidden)
        segmented.success(self._show, choices, shown, **hidden)
        upload.clear(self._clear, photo, results, **hidden)
        for control in controls:
            control.input(
                self._show, choices, shown, trigger_mode='always_last', show_progress='hidden', **hidden)

    def _clear(self, photo: Optional[Photo]) -> list:
        _delete_downloads(photo)
        return [None, gr.CheckboxGroup(choices=[], value=[]), *_show_nothing()]

    def _segment(self, path: Optional[str]) -> Tuple[Photo, Any]:
        if path is None:
            raise gr.Error('Expected a photo, but got none.')
        try:
            image, result = self.segmenter(path)
        except (ValueError, OSError) as error:
            # gradio shows the text as HTML, and it has the name of the file.
            raise gr.Error(html.escape(str(error)), print_exception=False) from error
        photo = Photo(Path(path).stem, image, result, tempfile.mkdtemp(dir=self.folder))
        classes = count_classes(result)
        return photo, gr.CheckboxGroup(choices=classes, value=[name for _, name in classes])

    def _show(self, photo: Optional[Photo], classes: Sequence[str], opacity: float, score: float,
              area: float) -> list:
        if photo is None:
            return _show_nothing()
        chosen = choose_segments(photo.result, classes, score, area)
        overlay = self.inferencer.draw(photo.image, chosen, opacity)
        files = write_downloads(photo, chosen, overlay)
        return [str(files[0]), list_segments(chosen), *_download_buttons(files)]


def _add_controls(min_score: float) -> List[Any]:
    """Classes, opacity, score threshold and smallest area."""
    return [
        gr.CheckboxGroup(label='Classes', choices=[], elem_id='classes'),
        gr.Slider(0, 1, 0.6, step=0.05, label='Opacity', elem_id='opacity'),
        gr.Slider(0, 1, min_score, step=0.01, label='Score threshold', elem_id='score'),
        gr.Slider(0, 10, 0, step=0.1, label='Smallest area, % of the photo', elem_id='area')
    ]


def _add_results() -> List[Any]:
    """Overlay, table of segments, and the buttons for download below the overlay."""
    overlay = gr.Image(
        label='Segments', interactive=False, height=520, elem_id='overlay', buttons=['fullscreen'])
    names = dict(overlay='Overlay (PNG)', ids='Segment ids (PNG)', json='Segments (JSON)')
    with gr.Row():
        downloads = [
            gr.DownloadButton(label, interactive=False, elem_id=f'download-{kind}')
            for kind, label in names.items()
        ]
    table = gr.Dataframe(
        headers=TABLE_HEADER,
        column_count=len(TABLE_HEADER),
        interactive=False,
        label='Segments',
        elem_id='segments')
    return [overlay, table, *downloads]


def _show_nothing() -> list:
    return [None, [], *_download_buttons([None] * 3)]


def _download_buttons(files: Sequence[Optional[Path]]) -> List[Any]:
    return [gr.DownloadButton(value=file and str(file), interactive=file is not None) for file in files]


def _delete_downloads(photo: Optional[Photo]) -> None:
    if photo is not None:
        shutil.rmtree(photo.folder, ignore_errors=True)
