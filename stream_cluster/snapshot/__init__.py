"""From a view of the state to a result archive: resolve the request, select, cluster, write.

`request` and `filters` say what is asked, `selection` finds the objects, `clusters` groups and numbers them,
`archive` writes the zip, `run` puts the steps together.
"""
