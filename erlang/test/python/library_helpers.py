"""Libraries of asyncio that serve and ask each other, for py_asyncio_libraries_SUITE."""

import asyncio
import contextlib
import functools
import hashlib
import socket
import ssl

import aiohttp
import anyio
import httpx
import trustme
import websockets
from aiohttp import web

import erlang

HOST = "127.0.0.1"
PIECE = bytes(range(256)) * 40
PIECES = 30
#: How often each library asks at the same time.
AT_ONCE = 50


def tell(name, what, *more):
    """Send an atom, or a tuple that begins with one, to a process of Erlang's."""
    what = erlang.atom(what)
    erlang.send(erlang.whereis(name), (what, *more) if more else what)


@functools.cache
def certificates():
    """TLS of a server, and of its clients."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST, "localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


# --- servers


async def stream(request):
    """A body in pieces, whose length nobody knows before."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(PIECES):
        await response.write(PIECE)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


async def digest(request):
    """The digest of what is uploaded, which is read as it comes."""
    sha256 = hashlib.sha256()
    async for chunk in request.content.iter_chunked(4096):
        sha256.update(chunk)
    return web.json_response({"sha256": sha256.hexdigest()})


async def echo(request):
    """A WebSocket that sends back what comes."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        match message.type:
            case aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            case aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
    return socket


async def never(request):
    """A request without an answer: Erlang is told that it has come, and that its client is gone."""
    name = request.query["name"]
    tell(name, "requested")
    try:
        await asyncio.Event().wait()
    finally:
        tell(name, "abandoned")


async def echo_back(connection):
    """The WebSocket of the library websockets that sends back what comes."""
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def site(tls=None):
    """A server of aiohttp's; its port."""
    application = web.Application(client_max_size=0)
    application.add_routes(
        [
            web.get("/stream", stream),
            web.post("/digest", digest),
            web.get("/echo", echo),
            web.get("/never", never),
        ]
    )
    runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def servers(tls=None):
    """A server of aiohttp's and one of websockets'; their addresses."""
    async with site(tls) as port, websockets.serve(echo_back, HOST, 0, ssl=tls) as server:
        yield Addresses(port, server.sockets[0].getsockname()[1], tls is not None)


class Addresses:
    """Where the servers are."""

    def __init__(self, http, other, is_secret=False, host=HOST):
        secret = "s" * is_secret
        self.site = f"http{secret}://{host}:{http}"
        self.echoes = [f"ws{secret}://{host}:{http}/echo", f"ws{secret}://{host}:{other}"]
        self.tls = certificates()[1] if is_secret else None
        self.ports = http, other


async def serve(name):
    """Serve until the task is cancelled. Erlang is told the ports, and the end."""
    try:
        async with servers() as addresses:
            tell(name, "serving", *addresses.ports)
            await asyncio.Event().wait()
    finally:
        tell(name, "stopped")


# --- clients: each gets the stream, uploads, and talks to both WebSockets, as far as it can


MESSAGES = ["text", "", b"binary", PIECE * 20]


async def pieces():
    """What is uploaded."""
    for _ in range(PIECES):
        yield PIECE
        await asyncio.sleep(0)


def check(sha256, data):
    """Both are what they are to be."""
    assert sha256 == hashlib.sha256(PIECE * PIECES).hexdigest()
    assert data == PIECE * PIECES


async def by_aiohttp(addresses, times=1):
    async with (
        aiohttp.TCPConnector(ssl=addresses.tls or True, limit=AT_ONCE * 2) as connector,
        aiohttp.ClientSession(connector=connector) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(times):
            group.create_task(aiohttp_requests(session, addresses))
            for address in addresses.echoes:
                group.create_task(aiohttp_echo(session, address))


async def aiohttp_requests(session, addresses):
    async with session.get(f"{addresses.site}/stream") as response:
        data = b"".join([chunk async for chunk in response.content.iter_any()])
    async with session.post(f"{addresses.site}/digest", data=pieces()) as response:
        check((await response.json())["sha256"], data)


async def aiohttp_echo(session, address):
    async with session.ws_connect(address) as socket:
        for message in MESSAGES:
            await (socket.send_str if isinstance(message, str) else socket.send_bytes)(message)
            assert (await socket.receive()).data == message
    assert socket.close_code == 1000


async def by_httpx(addresses, times=1):
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with (
        httpx.AsyncClient(verify=addresses.tls or False, limits=limits, trust_env=False) as client,
        anyio.create_task_group() as group,
    ):
        for _ in range(times):
            group.start_soon(httpx_requests, client, addresses)


async def httpx_requests(client, addresses):
    async with client.stream("GET", f"{addresses.site}/stream") as response:
        data = b"".join([chunk async for chunk in response.aiter_bytes()])
    response = await client.post(f"{addresses.site}/digest", content=pieces())
    check(response.json()["sha256"], data)


async def by_websockets(addresses, times=1):
    async with asyncio.TaskGroup() as group:
        for _ in range(times):
            for address in addresses.echoes:
                group.create_task(websockets_echo(address, addresses.tls))


async def websockets_echo(address, tls):
    async with websockets.connect(address, ssl=tls, proxy=None) as socket:
        for message in MESSAGES:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
    assert socket.close_code == 1000


async def ask(library, http, other, times=1, host=HOST):
    """Ask servers that run elsewhere by a library."""
    await globals()[f"by_{library}"](Addresses(http, other, host=host), times)


async def ask_all(addresses):
    await by_aiohttp(addresses)
    await by_httpx(addresses)
    await by_websockets(addresses)


# --- ends in the middle


async def wait(library, name, http):
    """Make a request that has no answer."""
    address = f"http://{HOST}:{http}/never?name={name}"
    if library == "aiohttp":
        async with aiohttp.ClientSession() as session, session.get(address):
            pass
    else:
        async with httpx.AsyncClient(verify=False, trust_env=False, timeout=None) as client:
            await client.get(address)


async def wait_shortly(library, name, http):
    """The same with the time-out that the library has: how it ends."""
    address = f"http://{HOST}:{http}/never?name={name}"
    match library:
        case "aiohttp":
            limit = aiohttp.ClientTimeout(total=0.05)
            async with aiohttp.ClientSession(timeout=limit) as session:
                try:
                    await session.get(address)
                except TimeoutError as error:
                    return type(error).__name__
        case "httpx":
            async with httpx.AsyncClient(verify=False, trust_env=False, timeout=0.05) as client:
                try:
                    await client.get(address)
                except httpx.ReadTimeout as error:
                    return type(error).__name__
        case "anyio":
            with anyio.move_on_after(0.05) as scope:
                await wait("httpx", name, http)
            return "cancelled" if scope.cancelled_caught else "answered"


# --- all in one loop


def run_alone(is_secret=False):
    """Servers and clients in one loop of a call, in debug mode: what its exception handler was told."""
    told = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 60
        loop.set_exception_handler(lambda _, context: told.append(str(context)))
        async with servers(certificates()[0] if is_secret else None) as addresses:
            await ask_all(addresses)

    with asyncio.Runner(debug=True, loop_factory=erlang.new_event_loop) as runner:
        runner.run(main())
    return told


async def keep_busy(name, http, other):
    """Have a connection of each library open until the task is cancelled."""
    addresses = Addresses(http, other)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(addresses.echoes[1]) as first,
        websockets.connect(addresses.echoes[0], proxy=None) as second,
    ):
        await first.send_str("hello")
        await second.send("hello")
        assert (await first.receive()).data == await second.recv()
        tell(name, "busy")
        await asyncio.Event().wait()


kept = []


async def keep_loop():
    """Keep the loop, which has a thread of its executor's."""
    loop = asyncio.get_running_loop()
    kept.append(loop)
    await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)


def are_closed():
    """Whether the loops that were kept are closed. They are kept no more."""
    closed = [loop.is_closed() for loop in kept]
    kept.clear()
    return closed


async def tasks():
    """How many there are beside this one."""
    return len(asyncio.all_tasks()) - 1


async def end_executor():
    await asyncio.get_running_loop().shutdown_default_executor()
