"""The old name of the data readers goes on for one release."""

import pytest

from fa_evaluate import data as now


def test_the_old_name_of_the_readers_warns_and_works():
    from feedback_adapter import data as then

    with pytest.warns(DeprecationWarning, match=r"import fa_evaluate\.data instead"):
        assert then.read is now.read
    with (
        pytest.warns(DeprecationWarning, match="has moved"),
        pytest.raises(AttributeError, match="raed"),
    ):
        getattr(then, "raed")  # noqa: B009


def test_without_the_distribution_the_error_says_what_to_install(monkeypatch):
    from feedback_adapter import data as then

    monkeypatch.setattr(then, "entry_points", lambda group: [])
    with pytest.raises(ImportError, match="install the distribution feedback-adapter-evaluate"):
        getattr(then, "read")  # noqa: B009
