#!/usr/bin/env python3
"""Loads a host as hostile and as busy clients do, bounded in count and time; it has to go on serving.

Clients held open, headers that never end, requests without pause, bodies of every wrong size, passwords guessed, and bytes that are no TLS. It goes to a host for tests on 127.0.0.1 only.
"""

import argparse
import asyncio
import json
import os
import random
import ssl
import sys
import time

TLS = ssl._create_unverified_context()
# Seconds after which a single answer is given up.
PATIENCE = 60


def fail(text):
    sys.exit(f"load: {text}")


async def within(awaitable, seconds=PATIENCE):
    return await asyncio.wait_for(awaitable, seconds)


class Client:
    """One connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port):
        return cls(*await within(asyncio.open_connection("127.0.0.1", port, ssl=TLS, server_hostname="tessera")))

    async def send(self, data):
        self.writer.write(data)
        await within(self.writer.drain())

    async def answer(self):
        """Status and body; None: the connection is closed."""
        line = await within(self.reader.readline())
        if not line:
            return None
        status, length = int(line.split()[1]), 0
        while (header := await within(self.reader.readline())) not in (b"\r\n", b""):
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, await within(self.reader.readexactly(length))

    async def ask(self, method, path, body=b"", headers=""):
        head = f"{method} {path} HTTP/1.1\r\nhost: tessera\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
        await self.send(head.encode() + body)
        return await self.answer()

    def close(self):
        self.writer.transport.abort()


async def log_in(port, password):
    """Status of a log-in on a connection of its own, and seconds that it took."""
    begun = time.monotonic()
    client = await Client.connect(port)
    body = json.dumps({"user": "root", "password": password, "bearer": True}).encode()
    answer = await client.ask("POST", "/api/v1/session", body, "content-type: application/json\r\n")
    client.close()
    return answer[0] if answer else 0, time.monotonic() - begun


async def hold(port, count):
    """Opens many connections, some at a time; those that were refused are not among them."""
    gate, held = asyncio.Semaphore(16), []

    async def one():
        async with gate:
            try:
                held.append(await Client.connect(port))
            except (OSError, ssl.SSLError, asyncio.TimeoutError):
                pass

    await asyncio.gather(*(one() for _ in range(count)))
    return held


async def drip(clients, seconds):
    """Headers that never end, a byte at a time. How many of the clients are cut off within the time."""
    cut = 0

    async def one(client):
        nonlocal cut
        try:
            await client.send(b"GET /api/v1/about HTTP/1.1\r\nx: ")
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await client.send(b"y")
                if client.reader.at_eof():
                    cut += 1
                    return
                await asyncio.sleep(1)
        except (OSError, ssl.SSLError, asyncio.TimeoutError):
            cut += 1

    await asyncio.gather(*(one(client) for client in clients))
    return cut


async def requests(port, count, lines, seconds):
    """So many requests on so many connections, or what the time allows. How many were answered well."""
    until, left, well = time.monotonic() + seconds, count, 0

    async def one():
        nonlocal left, well
        client = await Client.connect(port)
        while left > 0 and time.monotonic() < until:
            left -= 1
            answer = await client.ask("GET", "/api/v1/about")
            if answer is None:
                client = await Client.connect(port)
            elif answer[0] == 200:
                well += 1
            elif answer[0] not in (429, 503):
                fail(f"GET /api/v1/about is answered with {answer[0]}")
        client.close()

    await asyncio.gather(*(one() for _ in range(lines)))
    return well


WRONG_BODIES = [
    b"content-length: 10\r\n\r\nabc",
    b"content-length: 3\r\n\r\nabcdefgh",
    b"content-length: -1\r\n\r\nabc",
    b"content-length: 99999999999999999999999\r\n\r\nabc",
    b"content-length: 4294967296\r\n\r\nabc",
    b"content-length: 18446744073709551615\r\n\r\nabc",
    b"content-length: 0x10\r\n\r\nabc",
    b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
    b"transfer-encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
    b"transfer-encoding: chunked\r\n\r\nzz\r\nabc",
    b"transfer-encoding: gzip\r\n\r\nabc",
    b"content-length: 2000000\r\n\r\n" + b"[" * 2_000_000,
    b"content-length: 60000\r\n\r\n" + b'{"a":' * 12_000,
    b"\r\n\r\nabc",
    b"x: " + b"y" * 100_000 + b"\r\n\r\n",
    b"".join(b"x%d: y\r\n" % number for number in range(2000)) + b"\r\n",
]


async def wrong_bodies(port):
    for wrong in WRONG_BODIES:
        client = await Client.connect(port)
        try:
            await client.send(b"POST /api/v1/session HTTP/1.1\r\nhost: tessera\r\ncontent-type: application/json\r\n" + wrong)
            # What waits for the rest of a body is not answered, and the rest does not come.
            answer = await asyncio.wait_for(client.answer(), 5)
            # 501: a transfer coding that is not known (RFC 9112, 6.1).
            if answer and answer[0] != 501 and not 400 <= answer[0] < 500:
                fail(f"{wrong[:60]} is answered with {answer[0]}")
        except (OSError, ssl.SSLError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            pass
        client.close()


async def no_tls(port, count, seed):
    """Bytes that are no TLS, and hellos that were changed."""
    chance = random.Random(seed)
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        TLS.wrap_bio(into, out, server_hostname="tessera").do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = out.read()
    gate = asyncio.Semaphore(8)

    async def one():
        data = bytearray(hello)
        kind = chance.randrange(3)
        if kind == 0:
            data = bytearray(chance.randbytes(chance.randrange(1, 2000)))
        for _ in range(chance.randrange(1, 8) * (kind == 1)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if kind == 2:
            del data[chance.randrange(1, len(data)) :]
        async with gate:
            try:
                reader, writer = await within(asyncio.open_connection("127.0.0.1", port))
                writer.write(data)
                await within(writer.drain(), 5)
                await asyncio.wait_for(reader.read(4096), 0.5)
                writer.transport.abort()
            except (OSError, asyncio.TimeoutError):
                writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(count)))


async def let_in(port, password, when):
    status, seconds = await log_in(port, password)
    if status != 200:
        fail(f"the right password is answered with {status} {when}")
    print(f"log-in {when}: {seconds:.1f} s", flush=True)


async def run(options):
    port, password = options.port, options.password
    held = await hold(port, options.clients)
    print(f"held open: {len(held)} of {options.clients}", flush=True)
    if len(held) < options.clients:
        fail(f"only {len(held)} of {options.clients} clients were taken")
    await let_in(port, password, "beside them")
    dripping = asyncio.ensure_future(drip(held[:50], options.seconds))
    begun = time.monotonic()
    well = await requests(port, options.requests, 20, options.seconds)
    took = time.monotonic() - begun
    print(f"requests: {well} in {took:.1f} s, {well / took * 60:.0f} in a minute", flush=True)
    if well == 0:
        fail("nobody was answered")
    print(f"endless headers: {await dripping} of {len(held[:50])} cut off", flush=True)
    for client in held:
        client.close()
    await wrong_bodies(port)
    print(f"wrong bodies: {len(WRONG_BODIES)}", flush=True)
    await no_tls(port, options.fuzz, options.seed)
    print(f"no TLS: {options.fuzz} connections, seed {options.seed}", flush=True)
    await let_in(port, password, "after them")
    guesses = await asyncio.gather(*(log_in(port, f"guess {number}") for number in range(options.guesses)), return_exceptions=True)
    found = [guess[0] for guess in guesses if isinstance(guess, tuple)]
    if any(status not in (401, 429, 503) for status in found):
        fail(f"guesses are answered with {found}")
    print(f"guesses: {found.count(401)} refused, {len(found) - found.count(401)} turned away", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port of 127.0.0.1")
    parser.add_argument("--password", default=os.environ.get("ADMIN_PASSWORD", ""))
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=60, help="most time for the requests")
    parser.add_argument("--fuzz", type=int, default=200)
    parser.add_argument("--guesses", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
