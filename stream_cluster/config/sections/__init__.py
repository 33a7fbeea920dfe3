"""The sections of the settings: every setting with its type, range, default and one-line description."""
