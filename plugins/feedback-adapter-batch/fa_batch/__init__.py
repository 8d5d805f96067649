"""Refine a whole data set into Parquet: on one machine or on many, and started again it goes on.

`prepare` opens a data set and a checkpoint, and `Job.run` makes the shards that are missing. The
command `feedback-adapter batch` does both.
"""

from fa_batch.run import Job, Summary, prepare

__all__ = ["Job", "Summary", "prepare"]
