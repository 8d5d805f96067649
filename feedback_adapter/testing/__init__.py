"""What the tests of a plugin use: tiny models, plugins for the time of a test, conformance checks.

    from feedback_adapter.testing import check_evidence, check_strategy, scoped, tiny_outputs

    def test_my_evidence_keeps_its_promises():
        check_evidence(MyEvidence("a"), tiny_outputs())

    def test_my_strategy_keeps_its_promises():
        check_strategy(MyStrategy, MyOptions())

The checks raise `ConformanceError`, an `AssertionError` that names the promise.
"""

from feedback_adapter.plugins import scoped
from feedback_adapter.testing.evidence import check_evidence
from feedback_adapter.testing.promises import ConformanceError
from feedback_adapter.testing.state import differences, snapshot, untouched
from feedback_adapter.testing.strategy import check_strategy
from feedback_adapter.testing.tiny import (
    LABELS,
    TinyMapNet,
    TinyNet,
    tiny_adapter,
    tiny_images,
    tiny_outputs,
)

__all__ = [
    "LABELS",
    "ConformanceError",
    "TinyMapNet",
    "TinyNet",
    "check_evidence",
    "check_strategy",
    "differences",
    "scoped",
    "snapshot",
    "tiny_adapter",
    "tiny_images",
    "tiny_outputs",
    "untouched",
]
