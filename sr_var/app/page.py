"""The page itself, in Gradio: its tabs, and how it is served."""

from __future__ import annotations

from typing import Any

from sr_var.app.image_tab import add_image_tab
from sr_var.app.results import Results
from sr_var.app.sample_tab import add_sample_tab
from sr_var.app.samples import Sampling
from sr_var.app.train_tab import add_train_tab
from sr_var.app.training import Form
from sr_var.flags.app import AppFlags

_TITLE = "Mean and std of an image"
# seconds between looks for files of the page that are old, and how old
_CACHE = (600, 3600)
_NO_MODEL = """This tab draws samples from a diffusion model, and none was given.

Start the page with `--diffusion_model_path FILE`, a checkpoint of `image_train.py`;
`make demo-images` trains one on handwritten digits, and `make app` then finds it."""
_STYLE = """
footer { display: none !important; }
:is(#input, #mask) .image-container, :is(#input, #mask) .upload-container,
:is(#input, #mask) .image-frame { width: 100% !important; }
:is(#input, #mask) img { object-fit: contain !important; image-rendering: pixelated; }
:is(#input, #mask) img { width: 100% !important; height: auto !important; }
#samples img { image-rendering: pixelated; }
#samples .grid-wrap { max-height: none !important; }
.gradio-container { overflow: clip !important; }
#command { position: sticky; top: 0; z-index: 1; align-self: flex-start; }
#command .cm-editor, #command .cm-scroller { min-height: 6em !important; }
@media (max-width: 900px) {
  #command { order: -1; position: static; }
}
@media (max-width: 600px) {
  #samples .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)) !important; }
}
.prose table * { padding: 0.3em 0.5em; overflow-wrap: normal !important; word-break: normal; }
.prose td { white-space: nowrap; }
.prose pre code { white-space: pre-wrap !important; }
"""


def add_page(
    app: Any, results: Results, sampling: Sampling | None, form: Form, flags: AppFlags
) -> Any:
    """Mount the page at the root of a FastAPI application, and return that."""
    import gradio as gr

    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    theme = gr.themes.Default(font=fonts[0], font_mono=fonts[1])
    theme.set(block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400")
    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=_CACHE) as page:
        gr.Markdown(f"# {_TITLE}")
        with gr.Tab("Your image"):
            add_image_tab(gr, results, flags)
        with gr.Tab("Samples"):
            if sampling is None:
                gr.Markdown(_NO_MODEL)
            else:
                add_sample_tab(gr, sampling, flags)
        with gr.Tab("Training"):
            add_train_tab(gr, form)
    page.queue(max_size=flags.max_waiting, default_concurrency_limit=1, api_open=False)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme,
        css=_STYLE,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=flags.max_upload << 20,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
    )
