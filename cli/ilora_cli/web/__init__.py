"""What `ilora app` serves.

    offers   which adapters there are, by the generator they sit on
    models   the one generator in memory, and maps from it
    files    what may be uploaded, and the results on disk
    values   numbers of a map for the page, tile by tile
    page     the page itself (Gradio)
    gate     who may ask for what
    server   all of it on one port

No module here is imported before the command runs.
"""
