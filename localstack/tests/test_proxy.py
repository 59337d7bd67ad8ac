"""Of each fault of the proxy: whether the request happened, and what its sender was told."""

from __future__ import annotations

import asyncio

import pytest

from firn_local.proxy import FaultProxy, Message, Rule

PUT = b"PUT /lake/control/i/1 HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody"
LIST = b"PUT /lake/tables/firn/orders/metadata/snap-1.avro HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
SWAP_BODY = b'{"TableInput": {"Name": "orders"}}'
SWAP = b"POST / HTTP/1.1\r\nx-amz-target: AWSGlue.UpdateTable\r\ncontent-length: %d\r\n\r\n%s" % (
    len(SWAP_BODY),
    SWAP_BODY,
)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Cloud:
    """Answers everything with 200, and keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(Message(head, b"").header("content-length") or 0)
                self.seen.append(head.split(b" ", 2)[0] + b" " + await reader.readexactly(length))
                writer.write(OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def told(rules: list[Rule], *requests: bytes) -> tuple[list[bytes], list[bytes], FaultProxy]:
    """What the sender of these requests was told (nothing where the connection ended), and what the cloud saw."""
    cloud = Cloud()
    upstream = await asyncio.start_server(cloud.serve, "127.0.0.1", 0)
    proxy = FaultProxy(upstream.sockets[0].getsockname()[1], seed=1)
    proxy.rules = rules
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    answers = []
    for request in requests:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        writer.write(request)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            answers.append(head.split(b"\r\n")[0])
        except (asyncio.IncompleteReadError, ConnectionError):
            answers.append(b"")
        writer.close()
    await proxy.settled()
    listening.close()
    upstream.close()
    return answers, cloud.seen, proxy


@pytest.mark.parametrize(
    ("kind", "answer", "happened"),
    [
        ("refuse", b"HTTP/1.1 503 Slow Down", False),
        ("fail", b"HTTP/1.1 500 Internal Server Error", False),
        ("fail_after", b"HTTP/1.1 500 Internal Server Error", True),
        ("delay", b"HTTP/1.1 200 OK", True),
        ("reset", b"", False),
        ("lost", b"", True),
        ("late", b"", True),
    ],
)
def test_fault_is_what_it_says(kind: str, answer: bytes, happened: bool):
    rule = Rule(kind, 1.0, "s3.Put", (0.0, 0.0))
    answers, seen, proxy = asyncio.run(told([rule], PUT))
    assert (answers, seen) == ([answer], [b"PUT body"] if happened else [])
    assert proxy.drawn == {f"{kind} s3.PutObject": 1}


def test_other_operations_pass_untouched():
    answers, seen, proxy = asyncio.run(told([Rule("reset", 1.0, "glue.Get")], PUT, SWAP))
    assert answers == [b"HTTP/1.1 200 OK"] * 2
    assert (len(seen), proxy.drawn) == (2, {})


def test_moved_pointer_is_a_commit_only_after_a_new_manifest_list():
    _answers, _seen, proxy = asyncio.run(told([], SWAP, LIST, SWAP, SWAP))
    assert [table for _moment, table in proxy.commits] == ["orders"]


def test_commit_whose_answer_is_lost_is_a_commit():
    _answers, _seen, proxy = asyncio.run(told([Rule("lost", 1.0, "glue.Update")], LIST, SWAP))
    assert len(proxy.commits) == 1
