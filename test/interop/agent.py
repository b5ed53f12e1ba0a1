"""A small guest agent, written from docs/protocol.md.

It serves one unix socket: links with and without a key, the addresses that it is told to
announce, heartbeats, and streams on raw connections or, with --line, over the session. It has no
UDP, no unix sockets, no listeners for the host and asks for no URL: nothing of that has to be there.
"""

import argparse
import asyncio
import collections
import hmac
import ipaddress
import os
import socket
import struct
import sys
import time

from carriers import CHUNK, Connection, Session, Violation, exactly

# Frames, before a connection belongs to a session or a stream.
MAGIC = b"\xffRUM\r\n\x1a\n"
HELLO, REPLY, PROOF, READY, RAW, ENDS = range(1, 7)
MAX_FRAME = 1024
VERSION = 2
STATUS_OK, STATUS_AUTH = 0, 1

# Messages on the control stream.
MSG_HELLO, MSG_SNAPSHOT, MSG_DELTA, MSG_PING, MSG_PONG, MSG_END = 1, 2, 3, 5, 6, 7
MAX_MESSAGE = 1 << 20
REQUIRED = 0x80

# How a stream ends.
COMPLETE, ABORTED, STOPPED, RELEASED = range(1, 5)
END = struct.Struct(">QBQ")
MAX_EARLY = 1024

# What a stream is opened to, and what became of it.
TCP, REUSE = 0, 0x80
MAX_OPEN = 256
OK, REFUSED, TIMED_OUT, DENIED, UNREACHABLE = range(5)


def text(s, limit=512):
    b = s.encode()[:limit]
    return struct.pack(">H", len(b)) + b


def frame(kind, body):
    return MAGIC + struct.pack(">BH", kind, len(body)) + body


async def read_frame(reader, resync):
    before = await reader.readuntil(MAGIC)
    if len(before) != len(MAGIC) and not resync:
        raise Violation("not the protocol of a rum agent")
    kind, size = struct.unpack(">BH", await reader.readexactly(3))
    if not HELLO <= kind <= ENDS or size > MAX_FRAME:
        if resync:
            return 0, b""
        raise Violation(f"frame of kind {kind} with {size} bytes")
    return kind, await reader.readexactly(size)


def secret(key, purpose, hello, reply):
    return hmac.digest(key or b"", b"rum-agent " + purpose + b"\n" + hello + reply, "sha256")


class Told:
    """What the host has told about the end of a stream."""

    def __init__(self):
        self.sent, self.cut, self.stopped = None, False, False
        self.event = asyncio.Event()

    def take(self, kind, sent):
        if kind == STOPPED:
            self.stopped = True
        elif kind in (COMPLETE, ABORTED):
            if self.sent is None:
                self.sent, self.cut = sent, kind == ABORTED
            self.stopped = self.stopped or kind == ABORTED
            self.event.set()


class Link:
    def __init__(self, agent, session, line):
        self.agent, self.session, self.line = agent, session, line
        self.tasks, self.connections = set(), set()
        self.control = None  # the session's first stream
        self.ends = asyncio.get_running_loop().create_future()  # the connection for ends; none on a line
        self.told, self.early = {}, collections.OrderedDict()

    def spawn(self, coroutine):
        """Runs a task that ends with the link; if it fails as the link does, the link ends."""
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def run(self):
        began = asyncio.Event()

        def opened(stream):
            if self.control is None:
                self.control = stream
                began.set()
            else:
                self.spawn(self.serve(stream))

        parts = {self.spawn(self.session.run(opened)), self.spawn(self.converse(began))}
        if not self.line:
            parts.add(self.spawn(self.read_ends()))
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in list(self.tasks):
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            for c in list(self.connections):
                c.close()

    async def say(self, kind, body):
        await self.control.write(struct.pack(">IB", 1 + len(body), kind) + body)

    async def converse(self, began):
        await asyncio.wait_for(began.wait(), 10)
        if not self.line:
            await asyncio.wait_for(asyncio.shield(self.ends), 10)
        with open("/proc/sys/kernel/random/boot_id") as f:
            boot = f.read().strip()
        await self.say(MSG_HELLO, text("interop", 255) + text(socket.gethostname(), 255) + text(boot, 255))
        await self.announce()
        while True:
            (size,) = struct.unpack(">I", await exactly(self.control, 4))
            if not 1 <= size <= MAX_MESSAGE:
                raise Violation(f"message of {size} bytes")
            message = await exactly(self.control, size)
            kind, body = message[0], message[1:]
            if kind == MSG_PING:
                now = time.time_ns() + self.agent.clock_ahead * 10**9
                await self.say(MSG_PONG, body[:8] + field(1, struct.pack(">q", now)) + self.agent.unknown_field())
            elif kind == MSG_END:
                self.take_end(*END.unpack(body[:END.size]))
            elif kind & REQUIRED:
                raise Violation(f"message of kind {kind}, which has to be understood")

    async def announce(self):
        """Tells first that nothing listens, and then what does: a snapshot and a delta."""
        unknown = []
        if self.agent.unknown:
            await self.say(0x70, b"a message of a later version")
            unknown = [b"\x09" + address("127.0.0.1:9") + b"a listener of a later protocol"]
        await self.say(MSG_SNAPSHOT, struct.pack(">Q", 1) + items(unknown) + self.agent.unknown_field())
        added = [b"\0" + address(a) + text("interop[1]") + text("") + struct.pack(">BQI", 0, 0, 0) for a in self.agent.announced]
        await self.say(MSG_DELTA, struct.pack(">QQ", 1, 2) + items([]) + items(added))

    async def read_ends(self):
        ends = await self.ends
        if self.agent.unknown:
            await ends.write(END.pack(1, 0x70, 0))
        while True:
            sid, kind, sent = END.unpack(await exactly(ends, END.size))
            if kind & REQUIRED:
                raise Violation(f"end of kind {kind}, which has to be understood")
            self.take_end(sid, kind, sent)

    def take_end(self, sid, kind, sent):
        told = self.told.get(sid)
        if told is None:  # its request is on another connection and may come later, or the stream is over
            told = self.early.setdefault(sid, Told())
            if len(self.early) > MAX_EARLY:
                self.early.popitem(last=False)
        told.take(kind, sent)

    async def tell(self, sid, kind, sent):
        if self.line:
            await self.say(MSG_END, END.pack(sid, kind, sent))
        else:
            await self.ends.result().write(END.pack(sid, kind, sent))

    async def serve(self, carrier):
        """Serves the streams of a carrier: one, or on a raw connection one after the other."""
        self.connections.add(carrier)
        try:
            while await self.serve_one(carrier):
                pass
        except (OSError, Violation, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass  # a stream that went wrong, which has been told, or a raw connection that was not needed
        finally:
            self.connections.discard(carrier)
            carrier.close()

    async def serve_one(self, carrier):
        (size,) = struct.unpack(">H", await exactly(carrier, 2))
        if size > MAX_OPEN:
            raise Violation(f"request of {size} bytes")
        sid, reuse, targets = parse_open(await exactly(carrier, size))
        if not self.line and not self.ends.done():
            await asyncio.wait_for(asyncio.shield(self.ends), 10)
        told = self.told[sid] = self.early.pop(sid, None) or Told()
        try:
            status, service = await self.agent.connect(targets)
            await carrier.write(struct.pack(">BH", status, 0))
            if service is None:
                return False
            return await self.relay(sid, reuse, carrier, service, told)
        finally:
            del self.told[sid]

    async def relay(self, sid, reuse, carrier, service, told):
        sent = 0

        async def up():
            nonlocal sent
            while data := await service.read(CHUNK):
                if told.stopped:
                    return
                await carrier.write(data)
                sent += len(data)
            await self.tell(sid, COMPLETE, sent)
            if not reuse:
                await carrier.close_write()

        async def down():
            got, reading, end = 0, None, asyncio.ensure_future(told.event.wait())
            try:
                while not reuse or told.sent is None or got < told.sent:
                    reading = reading or asyncio.ensure_future(carrier.read(CHUNK))
                    await asyncio.wait({reading} if end.done() else {reading, end}, return_when=asyncio.FIRST_COMPLETED)
                    if not reading.done():
                        continue
                    data, reading = reading.result(), None
                    if not data:
                        await asyncio.wait_for(end, 10)
                        break
                    got += len(data)
                    await service.write(data)
            finally:
                end.cancel()
                if reading:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
            if told.cut or got != told.sent:
                raise ConnectionResetError(f"{got} of {told.sent} bytes, and no clean end")
            await service.close_write()

        halves = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            await asyncio.gather(*halves)
        except BaseException as e:
            for h in halves:
                h.cancel()
            await asyncio.gather(*halves, return_exceptions=True)
            service.abort()
            if isinstance(e, Exception) and not told.cut:  # else the link has ended, or the host knows
                await self.tell(sid, ABORTED, sent)
            raise
        service.close()
        if reuse:
            await self.tell(sid, RELEASED, 0)
        return reuse


def field(kind, body):
    return struct.pack(">BH", kind, len(body)) + body


def address(a):
    host, port = a.rsplit(":", 1)
    ip = ipaddress.ip_address(host.strip("[]")).packed
    return bytes([len(ip)]) + ip + struct.pack(">H", int(port))


def items(listeners):
    return struct.pack(">H", len(listeners)) + b"".join(struct.pack(">H", len(i)) + i for i in listeners)


def parse_open(b):
    sid, network, count = struct.unpack_from(">QBB", b)
    reuse, network, at, targets = bool(network & REUSE), network & ~REUSE, 10, []
    if network != TCP:
        raise Violation(f"network {network}")
    for _ in range(count):
        n = b[at]
        ip, (port,) = ipaddress.ip_address(b[at + 1 : at + 1 + n]), struct.unpack_from(">H", b, at + 1 + n)
        targets.append((ip, port))
        at += n + 3
    while at < len(b):  # fields
        kind, size = struct.unpack_from(">BH", b, at)
        if kind & REQUIRED:
            raise Violation(f"field of kind {kind}, which has to be understood")
        at += 3 + size
    return sid, reuse, targets


class Agent:
    def __init__(self, options):
        self.key = bytes.fromhex(open(options.key_file).read().strip()) if options.key_file else None
        self.announced, self.line = options.announce, options.line
        self.unknown, self.clock_ahead = options.unknown, options.clock_ahead
        self.instance = os.urandom(16)
        self.features = 0xFFFFFFFF << 32 if self.unknown else 0
        self.links = {}  # by token

    def unknown_field(self):
        return field(0x70, b"of a later version") if self.unknown else b""

    async def connect(self, targets):
        """Connects to the first of the targets that answers, of those that are announced."""
        status = DENIED
        for ip, port in targets:
            if address(f"{ip}:{port}") not in map(address, self.announced):
                continue
            try:
                return OK, Connection(*await asyncio.open_connection(str(ip), port))
            except OSError as e:
                status = REFUSED if isinstance(e, ConnectionRefusedError) else UNREACHABLE
        return status, None

    async def accept(self, reader, writer):
        connection = Connection(reader, writer)
        try:
            kind, body = await asyncio.wait_for(read_frame(reader, self.line), 10)
            if kind in (RAW, ENDS):
                link = next((l for token, l in self.links.items() if hmac.compare_digest(token, body)), None)
                if link is None:
                    raise Violation("a token of no link")
                link.connections.add(connection)
                if kind == RAW:
                    link.spawn(link.serve(connection))
                elif not link.ends.done():
                    link.ends.set_result(connection)
                return
            await self.link(reader, writer, kind, body)
        except (OSError, Violation, asyncio.IncompleteReadError, asyncio.TimeoutError, struct.error) as e:
            print(f"connection ended: {e!r}", file=sys.stderr, flush=True)
        connection.close()

    async def link(self, reader, writer, kind, body):
        token, answer = await self.shake_hands(reader, writer, kind, body)
        link = self.links[token] = Link(self, Session(reader, writer), self.line)
        try:
            writer.write(answer)  # after the token is known: raw connections may come right then
            await link.run()
        finally:
            del self.links[token]

    async def shake_hands(self, reader, writer, kind, body):
        """Returns the token, and the frame that makes it good."""
        hello = nonce = reply = None
        while True:
            if kind == HELLO and len(body) >= 37 and (hello is None or self.line):
                if body != hello:  # else the host repeats itself, and goes on from the first reply
                    nonce = os.urandom(32)
                hello = body
                low, high, host_has_key = struct.unpack_from(">HHB", hello)
                version = VERSION if low <= VERSION <= high else 0
                head = struct.pack(">HHHB", version, VERSION, VERSION, self.key is not None)
                head += self.instance + hello[5:37] + nonce
                features = struct.pack(">Q", self.features)
                reply = head + features
                proof = secret(self.key, b"guest proof", hello, reply) if self.key and host_has_key else bytes(32)
                writer.write(frame(REPLY, head + proof + features))
                if version == 0 and not self.line:
                    raise Violation(f"host speaks protocol version {low} to {high}")
            elif kind == PROOF and hello is not None and body[:32] == nonce:
                break
            elif not self.line:
                raise Violation(f"unexpected frame of kind {kind}")
            kind, body = await asyncio.wait_for(read_frame(reader, self.line), 10)
        status, size = struct.unpack_from(">BH", body, 32)
        if status != STATUS_OK:
            raise Violation(body[35 : 35 + size].decode(errors="replace"))
        why = ""
        if (self.key is None) != (not host_has_key):
            why = "one end has a key and the other has none"
        elif self.key and not hmac.compare_digest(body[35 + size : 67 + size], secret(self.key, b"host proof", hello, reply)):
            why = "the host agent's key is not the guest agent's"
        verdict = frame(READY, hello[5:37] + bytes([STATUS_AUTH if why else STATUS_OK]) + text(why) + bytes(32))
        if why:
            writer.write(verdict)
            await writer.drain()
            raise Violation(why)
        return secret(self.key, b"stream token", hello, reply)[:16], verdict


async def main():
    p = argparse.ArgumentParser(description="a small guest agent")
    p.add_argument("--listen", required=True, help="path of a unix socket")
    p.add_argument("--announce", nargs="+", default=[], help="addresses where services listen, such as 127.0.0.1:8080")
    p.add_argument("--key-file", help="64 hexadecimal digits")
    p.add_argument("--line", action="store_true", help="the host has one connection only, as on a serial port")
    p.add_argument("--unknown", action="store_true", help="say also what no version knows yet")
    p.add_argument("--clock-ahead", type=int, default=0, help="seconds")
    options = p.parse_args()
    agent = Agent(options)
    server = await asyncio.start_unix_server(agent.accept, options.listen, limit=1 << 20)
    async with server:
        await server.serve_forever()


asyncio.run(main())
