import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from shared.errors import PayloadError
from shared.wire import (
    ARRAYS,
    NOTES,
    Answer,
    answer_from_record,
    answer_to_record,
    clean,
    task_from_record,
    task_to_record,
)


def test_task_and_back():
    raw = bytes(range(256)) * 3
    assert task_from_record(task_to_record(raw, 30)) == (raw, 30.0)


@pytest.mark.parametrize(
    "answer", [Answer("video", b"\x00\xff"), Answer("video", reason="would overspend"), Answer("video")]
)
def test_answer_and_back(answer):
    assert answer_from_record(answer_to_record(answer)) == answer


def test_bytes_stand_in_one_array_as_they_are():
    record = answer_to_record(Answer("video", b"abc"))
    (array,) = record.array_records[ARRAYS].values()
    assert (array.dtype, array.shape, array.data) == ("uint8", (3,), b"abc")


@pytest.mark.parametrize(
    "record",
    [
        RecordDict(),
        RecordDict({"arrays": ArrayRecord([np.ones(2)])}),
        RecordDict({NOTES: ConfigRecord({"domain": 3, "timeout-s": "soon"})}),
        RecordDict({NOTES: ConfigRecord({"domain": "", "reason": "x"})}),
    ],
)
def test_other_records_are_refused(record):
    for read in (task_from_record, answer_from_record):
        with pytest.raises(PayloadError, match="found another message"):
            read(record)


def test_a_peers_text_comes_out_as_one_short_printable_line():
    answer = answer_from_record(answer_to_record(Answer("a\nb", reason="x\x1b[31m" + "y" * 600)))
    assert answer.domain == "a b"
    assert answer.reason.startswith("x [31my")
    assert len(answer.reason) == 500
    assert answer.reason.endswith("...")
    assert clean("as it is", 8) == "as it is"
