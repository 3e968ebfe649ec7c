import numpy as np
import pytest

from client.dataset import read_domain
from client.friends import MIN_FRIENDS, NOBODY, friends_met, read_friends

USERS = ("u0", "u1", "u2", "u3", "u4")


def write(folder, rows):
    (folder / "shop.net").write_bytes(b"source_id:token\ttarget_id:token\n" + rows)
    return read_friends(folder / "shop.net", USERS)


def test_friends_are_read_and_bad_rows_counted(tmp_path):
    rows = b"u3\tu1\nu0\tu2\nu0\tu1\nu0\tu1\nu0\tnobody\nu1\tu1\n\tu1\nu\xff\tu1\n"
    friends, (report,) = write(tmp_path, rows)
    assert [friends.of(user).tolist() for user in range(5)] == [[2, 1], [], [], [1], []]
    assert (report.rows_read, report.rows_kept) == (8, 3)
    assert {problem.kind for problem in report.problems} >= {
        "row given again",
        "user without interactions",
        "friendship with oneself",
        "user id missing",
        "user id that is not UTF-8",
    }


def test_no_file_is_no_friends(tmp_path):
    (tmp_path / "shop.item").write_text("item_id:token\ttitle:token_seq\ni1\tA\n")
    (tmp_path / "shop.inter").write_text("user_id:token\titem_id:token\nu1\ti1\n")
    assert read_domain(tmp_path).friends is NOBODY
    assert friends_met(NOBODY, np.arange(3), 0) is None


@pytest.mark.parametrize(("met", "told"), [(MIN_FRIENDS - 1, False), (MIN_FRIENDS, True), (4, False)])
def test_friends_are_told_of_only_where_no_single_one_can_be_known(tmp_path, met, told):
    friends, _ = write(tmp_path, b"u0\tu1\nu0\tu2\nu0\tu3\nu0\tu4\n")
    found = friends_met(friends, np.arange(1, 1 + met), 0)
    assert (found is not None) == told
    if told:
        assert (found.met, found.of) == (met, 4)


def test_a_domain_reads_its_net_and_graph(tmp_path):
    (tmp_path / "shop.item").write_text("item_id:token\ttitle:token_seq\ni1\tA\ni2\tB\n")
    (tmp_path / "shop.inter").write_text("user_id:token\titem_id:token\nu1\ti1\nu2\ti2\n")
    (tmp_path / "shop.net").write_text("source_id:token\ttarget_id:token\nu1\tu2\n")
    (tmp_path / "shop.kg").write_text(
        "head_id:token\trelation_id:token\ttail_id:token\ni1\tmade by\tX\ni2\tmade by\tx\n"
    )
    domain = read_domain(tmp_path)
    assert domain.friends.of(0).tolist() == [1]
    assert domain.knowledge.of_item(0) == (("made by", "X"),)
    assert [report.file for report in domain.reports] == ["shop.item", "shop.inter", "shop.kg", "shop.net"]
