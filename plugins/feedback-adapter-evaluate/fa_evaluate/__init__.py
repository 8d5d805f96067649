"""Measure what evidence is worth, on images whose truth is known.

`feedback-adapter evaluate` is this package's command. Its parts can be used from Python, too:

- `fa_evaluate.data` reads labelled and captioned images;
- `fa_evaluate.protocols` has the four experiments of Feedback-prop (CVPR 2018, section 4);
- `fa_evaluate.metrics` and `fa_evaluate.caption_metrics` score predictions and captions;
- `fa_evaluate.bootstrap` gives every score its interval;
- `fa_evaluate.baselines` are methods without feedback, to compare with.
"""
