"""How good are clusters, measured on objects whose people are known.

`truth` reads who they are and `archive` what was clustered, `measures` and `mistakes` compare the two,
`compare` sets two archives beside each other, `sweep` clusters at many thresholds and by both linkages,
`files` goes from file to figures, `report` and `plot` show.
"""
