"""How good are thresholds, measured on pairs whose truth is known, and which logistic scale fits them.

`pairs` reads or makes the pairs, `scores` counts their cosines, `rates` and `fit` evaluate, `report` and
`plot` show.
"""
