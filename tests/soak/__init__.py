"""The soak: random work and random faults against a real broker, compared with a model in plain Python.

`steps` decides what happens, `messages` makes the records, `truth` says what must come out, `drive` does it.
"""
