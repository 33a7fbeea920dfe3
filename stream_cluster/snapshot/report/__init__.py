"""report.html: one file, without network, to look at the clusters of a snapshot.

`facts` reads what is shown of objects, `merged` says what components would have merged, `listing` chooses
what fits, `thumbnails` makes pictures in processes of their own, `words`, `charts` and `head` make what is
read first, and `write` puts it all together.
"""
