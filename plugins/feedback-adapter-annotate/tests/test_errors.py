from fa_annotate.errors import AnnotateError
from feedback_adapter.errors import FeedbackAdapterError


def test_errors_are_shown_on_one_line_as_the_librarys_own_are():
    assert issubclass(AnnotateError, FeedbackAdapterError)
