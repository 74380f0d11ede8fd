"""The third tab: a training as a form, and the command to copy. Nothing is run."""

from __future__ import annotations

from typing import Any

from sr_var.app.results import Refused
from sr_var.app.training import MOST_PROCESSES, PRECISIONS, SECTIONS, Form

_WORDS = """A training takes hours and belongs to a terminal: choose, then copy the command and run
it in the folder of this toolkit. `--resume_checkpoint auto` goes on where it was when you run it
again. The page starts nothing, and looks at no path."""
_BOX = {"min_width": 220}
# sections that are unfolded
_OPEN = ("Images", "Steps")


def add_train_tab(gr: Any, form: Form) -> None:
    """A widget for each flag; the command follows every change."""
    gr.Markdown(_WORDS)
    with gr.Row():
        with gr.Column(scale=3):
            names, widgets = _add_widgets(gr, form)
            precision, processes = _add_machine(gr)
        with gr.Column(scale=2, min_width=320, elem_id="command"):
            shown = gr.Code(
                label="Command", language=None, interactive=False, wrap_lines=True, lines=3
            )

    def show(*values: Any) -> str:
        *flags, kind, num = values
        try:
            return form.command(dict(zip(names, flags, strict=True)), kind, int(num or 1))
        except Refused as refusal:
            return f"# {refusal}"

    inputs, own = [*widgets, precision, processes], {"api_visibility": "private"}
    changes = [widget.change for widget in inputs]
    first = show(*(form.begin(name) for name in names), "fp32", 1)
    shown.value = first
    gr.on(changes, show, inputs, [shown], show_progress="hidden", queue=False, **own)


def _add_widgets(gr: Any, form: Form) -> tuple[list[str], list[Any]]:
    """Names of flags and their widgets, section by section."""
    names, widgets = [], []
    for title, flags in SECTIONS.items():
        with gr.Accordion(title, open=title in _OPEN), gr.Row():
            for name in flags:
                names.append(name)
                widgets.append(_widget(gr, form, name))
    return names, widgets


def _add_machine(gr: Any) -> tuple[Any, Any]:
    """The precision and the number of processes, which are no flags of their own."""
    with gr.Accordion("The machine", open=False), gr.Row():
        info = "numbers to compute in; master parameters stay fp32"
        precision = gr.Dropdown(
            list(PRECISIONS), value="fp32", label="precision", info=info, **_BOX
        )
        processes = gr.Number(
            1,
            label="processes",
            info="one for each GPU, by torchrun; each takes batch_size images",
            precision=0,
            minimum=1,
            maximum=MOST_PROCESSES,
            **_BOX,
        )
    return precision, processes


def _widget(gr: Any, form: Form, name: str) -> Any:
    """What fits the values of a flag."""
    field, begin = form.flags[name], form.begin(name)
    look = {"label": name, "info": field.metadata["help"], **_BOX}
    choices = field.metadata["choices"]
    if choices:
        return gr.Dropdown(list(choices), value=begin, **look)
    if isinstance(field.default, bool):
        return gr.Dropdown(["True", "False"], value=str(begin), **look)
    if isinstance(field.default, int | float) and not field.metadata["is_size"]:
        precision = 0 if isinstance(field.default, int) else None
        return gr.Number(begin, precision=precision, **look)
    return gr.Textbox(str(begin), max_lines=1, **look)
