"""The page to try the networks in a browser, and the same by HTTP (docs/app.md).

limits → results → samples → guard → page → server; Gradio and FastAPI are imported by the last two,
when a server is made.
"""
