"""Clustering of files without a broker: the same engine over JSON lines and NumPy archives.

`sources` opens inputs, `vectors` reads `.npz`, `load` fills a temporary state, `run` makes the archive.
"""
