"""Sockets passed by systemd, as sd_listen_fds(3) tells of them."""

import pytest

from prefork.systemd import MOST_FDS, listen_fds

PID = 4711


def passed(**environ: str) -> list[tuple[int, str]]:
    return listen_fds({"LISTEN_PID": str(PID), **environ}, PID)


def test_descriptors_count_up_from_three_and_have_their_names() -> None:
    assert passed(LISTEN_FDS="2", LISTEN_FDNAMES="web:admin") == [(3, "web"), (4, "admin")]


def test_without_names_every_socket_is_unknown() -> None:
    assert passed(LISTEN_FDS="2") == [(3, "unknown"), (4, "unknown")]


def test_several_sockets_may_have_one_name_and_a_name_may_be_empty() -> None:
    names = passed(LISTEN_FDS="3", LISTEN_FDNAMES="web::web")
    assert names == [(3, "web"), (4, ""), (5, "web")]


def test_nothing_is_passed_without_the_variables() -> None:
    assert listen_fds({}, PID) == []
    assert passed() == []
    assert listen_fds({"LISTEN_FDS": "1"}, PID) == []


def test_sockets_for_another_process_are_not_ours() -> None:
    assert listen_fds({"LISTEN_PID": str(PID + 1), "LISTEN_FDS": "1"}, PID) == []


@pytest.mark.parametrize("text", ["", "x", "-1", "+3", " 3", "3_0", "3.0", "٣", "9" * 11])
@pytest.mark.parametrize("key", ["LISTEN_PID", "LISTEN_FDS"])
def test_what_is_no_number_is_refused_by_name(key: str, text: str) -> None:
    environ = {"LISTEN_PID": str(PID), "LISTEN_FDS": "1", key: text}
    with pytest.raises(ValueError, match=f"^{key} is .*must be a decimal number$"):
        listen_fds(environ, PID)


@pytest.mark.parametrize("count", [0, MOST_FDS + 1])
def test_a_count_that_no_process_can_have_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"^LISTEN_FDS is {count}: it must be from 1 to"):
        passed(LISTEN_FDS=str(count))


@pytest.mark.parametrize("names", ["", "web", "web:admin:more"])
def test_names_and_descriptors_must_be_as_many(names: str) -> None:
    found = len(names.split(":"))
    with pytest.raises(ValueError, match=rf"^LISTEN_FDNAMES has {found} names, .* is 2$"):
        passed(LISTEN_FDS="2", LISTEN_FDNAMES=names)
