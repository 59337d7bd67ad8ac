"""A proxy in front of S3 and Glue that misbehaves on request, and sees every commit.

Flow: agent and functions -> **here** -> local cloud. `Proxy` starts it and says what shall go wrong, over HTTP.

Always holds: what happened and what was told are drawn apart, as in a network: a request may be refused unseen
(`refuse`, `fail`, `reset`), done and its answer lost (`lost`) or told wrongly (`fail_after`), or done long after its
sender gave up (`late`). Without rules it changes nothing. The same seed and order of requests give the same draws.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass
from urllib.parse import unquote

from .processes import Supervisor
from .services import free_port

CONTROL = "/_faults"
HEAD_BYTES_MAX = 1 << 20
_LIST = re.compile(r"^/[^/]+/tables/[^/]+/([^/]+)/metadata/snap-")
_S3 = {"GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject", "HEAD": "HeadObject", "POST": "PostObject"}


@dataclass(frozen=True)
class Rule:
    """What goes wrong with a share of the requests whose operation and key match."""

    kind: str
    share: float
    operations: str = ".*"
    delay_seconds: tuple[float, float] = (0.2, 2.0)

    def meets(self, operation: str, draw: random.Random) -> bool:
        """Whether this request is hit."""
        return re.match(self.operations, operation) is not None and draw.random() < self.share


@dataclass
class Message:
    """A request or an answer: its head as it came, and its whole body."""

    head: bytes
    body: bytes

    @property
    def first(self) -> list[str]:
        """The words of the first line."""
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    def header(self, name: str) -> str:
        """A header's value, empty if it is not there."""
        found = re.search(rb"(?im)^" + re.escape(name.encode()) + rb":[ \t]*(.*?)\r?$", self.head)
        return found.group(1).decode("latin-1") if found else ""

    @property
    def operation(self) -> str:
        """`glue.UpdateTable`, or `s3.PutObject` and the key's path."""
        if target := self.header("x-amz-target"):
            return f"glue.{target.rpartition('.')[2]}"
        method, path, *_rest = self.first
        path, _mark, query = path.partition("?")
        name = "ListObjects" if method == "GET" and "list-type" in query else _S3.get(method, method)
        return f"s3.{name} {unquote(path)}"


async def read_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, bodyless: bool) -> Message:
    """One message; `writer` is told to go on where the sender asks for it first."""
    head = await reader.readuntil(b"\r\n\r\n")
    message = Message(head, b"")
    if writer is not None and "100-continue" in message.header("expect").lower():
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        message.head = re.sub(rb"(?im)^expect:.*\r\n", b"", head)
    if bodyless:
        return message
    if "chunked" in message.header("transfer-encoding").lower():
        parts = []
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            parts += [line, await reader.readexactly(size + 2)]
            if size == 0:
                break
        message.body = b"".join(parts)
    elif length := int(message.header("content-length") or 0):
        message.body = await reader.readexactly(length)
    return message


class FaultProxy:
    """The proxy itself: one connection to the cloud for each of a client."""

    def __init__(self, upstream_port: int, seed: int) -> None:
        self._upstream_port = upstream_port
        self._random = random.Random(f"{seed}/proxy")
        self.rules: list[Rule] = []
        self.drawn: Counter[str] = Counter()
        self._lists: set[str] = set()
        self._late: set[asyncio.Task[object]] = set()
        # Moment (monotonic, the same for all processes) and table of every commit: a moved pointer after a new list.
        self.commits: list[tuple[float, str]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until it or the cloud hangs up, or a fault does."""
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                request = await read_message(reader, writer, bodyless=False)
                if request.first[1].startswith(CONTROL):
                    writer.write(self._control(request))
                    continue
                upstream = upstream or await self._connect()
                answer = await self._meet(request, upstream)
                if answer is None:
                    writer.transport.abort()
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            pass
        finally:
            for one in (writer, upstream[1] if upstream else None):
                if one is not None:
                    one.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._upstream_port, limit=HEAD_BYTES_MAX)

    async def _meet(
        self, request: Message, upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> bytes | None:
        """Forwards a request as the rules want it; None hangs up."""
        operation = request.operation
        rule = next((rule for rule in self.rules if rule.meets(operation, self._random)), None)
        if rule is None:
            return await self._forward(request, operation, upstream)
        self.drawn[f"{rule.kind} {operation.split(' ')[0]}"] += 1
        if rule.kind in ("refuse", "fail"):
            return _refusal(operation, throttled=rule.kind == "refuse")
        if rule.kind == "reset":
            return None
        if rule.kind == "late":
            task = asyncio.create_task(self._forward_late(request, operation, rule))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return None
        if rule.kind == "delay":
            await asyncio.sleep(self._random.uniform(*rule.delay_seconds))
        answer = await self._forward(request, operation, upstream)
        if rule.kind == "lost":
            return None
        return _refusal(operation, throttled=False) if rule.kind == "fail_after" else answer

    async def _forward(
        self, request: Message, operation: str, upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> bytes:
        reader, writer = upstream
        writer.write(request.head + request.body)
        answer = await read_message(reader, None, bodyless=operation.startswith("s3.HeadObject"))
        if answer.first[1] == "200":
            self._note(request, operation)
        return answer.head + answer.body

    async def settled(self) -> None:
        """Waits until no late request is on its way."""
        await asyncio.gather(*self._late)

    async def _forward_late(self, request: Message, operation: str, rule: Rule) -> None:
        await asyncio.sleep(self._random.uniform(*rule.delay_seconds))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            upstream = await self._connect()
            await self._forward(request, operation, upstream)
            upstream[1].close()

    def _note(self, request: Message, operation: str) -> None:
        if operation.startswith("s3.PutObject"):
            if found := _LIST.match(operation.removeprefix("s3.PutObject ")):
                self._lists.add(found.group(1))
        elif operation == "glue.UpdateTable":
            table = json.loads(request.body)["TableInput"]["Name"]
            if table in self._lists:
                self._lists.discard(table)
                self.commits.append((time.monotonic(), table))

    def _control(self, request: Message) -> bytes:
        method, path, *_rest = request.first
        if method == "PUT":
            self.rules = [Rule(**rule) for rule in json.loads(request.body)]
        since = int(path.rpartition("since=")[2] or 0)
        facts = {"drawn": self.drawn, "commits": self.commits[since:]}
        return _response("200 OK", "application/json", json.dumps(facts).encode())


def _refusal(operation: str, *, throttled: bool) -> bytes:
    if operation.startswith("glue."):
        name = "ThrottlingException" if throttled else "InternalServiceException"
        status = "400 Bad Request" if throttled else "500 Internal Server Error"
        return _response(
            status, "application/x-amz-json-1.1", json.dumps({"__type": name, "Message": "on purpose"}).encode()
        )
    code, status = ("SlowDown", "503 Slow Down") if throttled else ("InternalError", "500 Internal Server Error")
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>on purpose</Message></Error>'
    return _response(status, "application/xml", body.encode())


def _response(status: str, kind: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Proxy:
    """The proxy's process, as the run sees it."""

    def __init__(self, supervisor: Supervisor, seed: int) -> None:
        self._supervisor, self._seed = supervisor, seed
        self.port = free_port()
        self._read = 0
        self.commits: list[tuple[float, str]] = []
        self.drawn: dict[str, int] = {}

    @property
    def endpoint(self) -> str:
        """Address in place of the cloud's."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, upstream_port: int) -> None:
        """Starts it before the cloud's port."""
        words = ["--listen", str(self.port), "--upstream", str(upstream_port), "--seed", str(self._seed)]
        self._supervisor.start("proxy", [sys.executable, "-m", "firn_local.proxy", *words])
        self._supervisor.wait_until(self._answers, "the proxy")

    def _answers(self) -> bool:
        try:
            self.look()
        except OSError:
            return False
        return True

    def set(self, *rules: Rule) -> None:
        """From now on these rules hold, and no others."""
        self._ask(json.dumps([asdict(rule) for rule in rules]).encode())

    def look(self) -> None:
        """Reads what was drawn and committed since the last look."""
        self._ask(None)

    def _ask(self, rules: bytes | None) -> None:
        request = urllib.request.Request(
            f"{self.endpoint}{CONTROL}?since={self._read}", data=rules, method="GET" if rules is None else "PUT"
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            facts = json.loads(answer.read())
        self.drawn = facts["drawn"]
        self.commits += [(moment, table) for moment, table in facts["commits"]]
        self._read += len(facts["commits"])


async def _run(listen: int, upstream: int, seed: int) -> None:
    proxy = FaultProxy(upstream, seed)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", listen, limit=HEAD_BYTES_MAX)
    async with server:
        await server.serve_forever()


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser()
    for name in ("--listen", "--upstream", "--seed"):
        parser.add_argument(name, type=int, required=True)
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.listen, arguments.upstream, arguments.seed))


if __name__ == "__main__":
    main()
