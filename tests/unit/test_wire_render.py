"""Lines of the two columns."""

from prefork.wire.packet import Endpoint, Packet
from prefork.wire.render import heading, lines
from tests.support.wire_packets import HANDSHAKE, c, s, talk


def shown(*packets: Packet) -> list[str]:
    return [line for step in talk(*packets) for line in lines(step)]


def test_arrows_go_from_the_client_on_the_left_to_the_server_on_the_right() -> None:
    request = c("P", 1, 1, 80, at=1_500_000, lines=("GET / HTTP/1.1",))
    assert shown(*HANDSHAKE, request, s("", 1, 81, at=2_500_000)) == [
        "  1      0 us |-- SYN seq=0 len=0 ------------------------>|  handshake 1 of 3: asks",
        "  1      0 us |<-------------- SYN,ACK seq=0 ack=1 len=0 --|  handshake 2 of 3: agreed",
        "  1      0 us |-- ACK seq=1 ack=1 len=0 ------------------>|  handshake 3 of 3: open",
        "  1    1.5 ms |-- PSH,ACK seq=1 ack=1 len=80 ------------->|  data  GET / HTTP/1.1",
        "  1      1 ms |<----------------- ACK seq=1 ack=81 len=0 --|  acknowledged",
    ]


def test_options_are_named_where_they_matter() -> None:
    options = ("MSS 1460", "SACK permitted", "timestamps", "window scale 7")
    syn = shown(c("S", 0, options=options))
    assert syn[1].endswith("|  MSS 1460, SACK permitted, timestamps, window scale 7")
    assert syn[1].index("|") == syn[0].index("|")
    assert syn[1].rindex("|") == syn[0].rindex("|")
    plain = shown(c("", 5, 1, options=("timestamps",)))
    assert len(plain) == 1
    gap = shown(c("", 5, 101, options=("timestamps",), sack=((201, 301),)))
    assert gap[1].endswith("|  SACK 101-201")  # 101 is the first number seen, and counts as 1


def test_large_numbers_make_an_arrow_longer_and_lose_nothing() -> None:
    far = [s("", number, 1, 2**30) for number in range(1, 2**32, 2**30)]
    last = shown(*HANDSHAKE, *far, s("P", 2**32 + 1, 1_000_000_000, 65483))[-1]
    assert "|< PSH,ACK seq=4294967297 ack=1000000000 len=65483 --|  data" in last


def test_the_endpoints_stand_over_their_columns() -> None:
    (step,) = talk(c("S", 0))
    top, roles = heading(step.connection)
    line = next(lines(step))
    left, right = line.index("|"), line.rindex("|")
    assert top == "connection 1  127.0.0.1:50000                 127.0.0.1:8000"
    assert top.index("127.0.0.1:50000") == roles.index("client") == left
    assert len(top) == len(roles) == right + 1


def test_long_endpoints_stay_apart() -> None:
    client = Endpoint("2001:db8:1111:2222:3333:4444:5555:6666", 50000)
    (step,) = talk(c("S", 0, client=client))
    assert (
        "[2001:db8:1111:2222:3333:4444:5555:6666]:50000  127.0.0.1:8000"
        in (heading(step.connection)[0])
    )
