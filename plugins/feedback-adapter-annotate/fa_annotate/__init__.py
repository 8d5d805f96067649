"""Annotate photos in a browser: every answer improves the predictions of what is left.

`feedback-adapter annotate` and `feedback-adapter playground` are this package's commands. Its parts
can be used from Python, too:

- `fa_annotate.answers` keeps what was answered in a file that only grows;
- `fa_annotate.questions` says which question is worth most;
- `fa_annotate.exports` writes answers in the formats of other programs.
"""
