import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain.data.names import Names

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(TEXT))
def test_names_are_what_was_given(names: list[str]) -> None:
    stored = pickle.loads(pickle.dumps(Names(names)))
    assert list(stored) == names
    assert len(stored) == len(names)
    assert stored[1:3] == names[1:3]
    assert stored[::-1] == names[::-1]
    if names:
        assert stored[-1] == names[-1]
    with pytest.raises(IndexError):
        stored[len(names)]


def test_names_of_files_need_not_be_unicode() -> None:
    odd = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert Names([odd])[0] == odd
