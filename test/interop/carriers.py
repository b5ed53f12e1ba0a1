"""What carries a stream: a raw connection, or a stream of the session, which is a part of yamux."""

import asyncio
import contextlib
import socket
import struct

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
FIRST_WINDOW = 256 << 10
CHUNK = (64 << 10) - 12


class Violation(Exception):
    """What ends a link, or the connection that was to be one."""


class Connection:
    """A raw connection, and what carries a stream."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def read(self, n):
        return await self.reader.read(n)

    async def write(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def close_write(self):
        if self.writer.can_write_eof():
            self.writer.write_eof()

    def close(self):
        self.writer.close()

    def abort(self):
        """Resets the connection: what was cut is to look like it."""
        with contextlib.suppress(OSError):  # it is closed already
            s = self.writer.get_extra_info("socket")
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class MuxStream:
    """A stream of the session: what Connection is, over yamux."""

    def __init__(self, session, sid):
        self.session, self.sid = session, sid
        self.incoming = asyncio.StreamReader()
        self.may_send, self.granted = FIRST_WINDOW, FIRST_WINDOW
        self.changed = asyncio.Event()
        self.ended = self.closed = self.reset = False  # by the host, by us, by either

    async def read(self, n):
        data = await self.incoming.read(n)
        if data and not self.ended:
            self.granted += len(data)
            self.session.send(WINDOW, 0, self.sid, len(data))
        return data

    async def write(self, data):
        while data:
            while self.may_send == 0 and not self.reset:
                self.changed.clear()
                await self.changed.wait()
            if self.reset:
                raise ConnectionResetError("the stream was reset")
            n = min(len(data), self.may_send, CHUNK)
            self.may_send -= n
            self.session.send(DATA, 0, self.sid, n, data[:n])
            await self.session.writer.drain()
            data = data[n:]

    async def close_write(self):
        self.closed = True
        self.session.send(WINDOW, FIN, self.sid, 0)

    def close(self):
        if not (self.closed and self.ended):
            self.session.send(WINDOW, RST, self.sid, 0)
        self.session.streams.pop(self.sid, None)

    def took(self, kind, flags, length, body):
        """Takes in a frame of the other end."""
        if kind == DATA:
            self.granted -= length
            if self.granted < 0:
                raise Violation("more data than the window of a stream")
            if not self.ended:
                self.incoming.feed_data(body)
        else:
            self.may_send += length
        if flags & (FIN | RST) and not self.ended:
            self.ended = True
            self.incoming.feed_eof()
        self.reset = self.reset or bool(flags & RST)
        self.changed.set()


class Session:
    """The part of yamux that agents use: neither end sends a ping, and only the host opens streams here."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.streams, self.last = {}, 0

    def send(self, kind, flags, sid, length, body=b""):
        if not self.writer.is_closing():
            self.writer.write(struct.pack(">BBHII", 0, kind, flags, sid, length) + body)

    async def run(self, opened):
        while True:
            version, kind, flags, sid, length = struct.unpack(">BBHII", await self.reader.readexactly(12))
            if version != 0 or kind not in (DATA, WINDOW, GO_AWAY):
                raise Violation(f"yamux frame of version {version} and type {kind}")
            if kind == GO_AWAY:
                return
            if kind == DATA and length > CHUNK:
                raise Violation(f"yamux frame of {length} bytes")
            body = await self.reader.readexactly(length) if kind == DATA else b""
            if flags & SYN:
                if sid % 2 == 0 or sid <= self.last:
                    raise Violation(f"stream {sid} cannot be opened")
                self.last = sid
                self.streams[sid] = MuxStream(self, sid)
                self.send(WINDOW, ACK, sid, 0)
                opened(self.streams[sid])
            if sid in self.streams:
                self.streams[sid].took(kind, flags, length, body)


async def exactly(carrier, n):
    data = b""
    while len(data) < n:
        more = await carrier.read(n - len(data))
        if not more:
            raise asyncio.IncompleteReadError(data, n)
        data += more
    return data
