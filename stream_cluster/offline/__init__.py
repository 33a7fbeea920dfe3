"""Clustering of files without a broker: the same engine over JSON lines and NumPy archives.

`sources` opens inputs, `vectors` reads `.npz`, `load` fills a temporary state, `run` makes the archive;
`thresholds` makes none, and also reads the state of a service; `plot` draws what it found.
"""
