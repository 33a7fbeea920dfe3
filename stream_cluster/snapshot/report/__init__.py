"""report.html: one file, without network, to look at the clusters of a snapshot.

`facts` reads what is shown of objects, `listing` chooses which of them fit, `thumbnails` makes pictures of
them in processes of their own, `words`, `charts` and `head` make what is read first, and `write` puts it all
together.
"""
