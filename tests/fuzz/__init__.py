"""Fuzzing of everything that decodes what others wrote: objects, tasks, statuses, cluster updates, filters.

`seeds` are where it begins, `mutate` changes them knowing their structure, `target` says what must hold.
"""
