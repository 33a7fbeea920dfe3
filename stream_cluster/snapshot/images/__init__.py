"""Images of the clustered objects, from where they are kept into the archive.

`references` says what may be looked up, `directory`, `web` and `bucket` read it, `detect` tells what it is,
`fetch` reads one within its limits, `save` reads all of them in order while others are under way.
"""
