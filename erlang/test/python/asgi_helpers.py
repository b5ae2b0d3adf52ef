"""An application of FastAPI and uvicorn, which serves it in a context, for py_asgi_SUITE."""

import asyncio
import contextlib
import logging
import socket
import threading

import anyio
import httpx
import uvicorn
import websockets
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from uvicorn.server import ServerState

import erlang
from erlang import server

HOST = "127.0.0.1"


def tell(what, *more):
    """Send an atom, or a tuple that begins with one, to the test."""
    what = erlang.atom(what)
    erlang.send(erlang.whereis("py_asgi_SUITE"), (what, *more) if more else what)


# --- the application


@contextlib.asynccontextmanager
async def lifespan(app):
    tell("started_up")
    yield {"greeting": "Hello"}
    tell("shut_down")


class Order(BaseModel):
    item: str
    count: int


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def root():
    return {"hello": "world"}


@app.get("/stock/{item}")
async def stock(item: str):
    """What Erlang knows, while other requests go on."""
    count = await erlang.async_call("asgi_stock", item)
    if count is None:
        raise HTTPException(404, f"no {item}")
    return {"item": item, "count": count}


@app.get("/blocking/{item}")
def blocking(item: str):
    """The same in a thread of the application's."""
    return {
        "count": erlang.call("asgi_stock", item),
        "main": threading.current_thread() is threading.main_thread(),
    }


async def discount():
    await asyncio.sleep(0)
    return 2


@app.post("/orders", status_code=201)
async def order(order: Order, background: BackgroundTasks, discount: int = Depends(discount)):
    background.add_task(tell, "ordered", order.item, order.count)
    return {"count": order.count, "price": order.count * discount}


@app.get("/numbers")
async def numbers(count: int):
    async def lines():
        for number in range(count):
            await asyncio.sleep(0)
            yield f"{number}\n"

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/never")
async def never():
    tell("requested")
    await asyncio.Event().wait()


@app.websocket("/echo")
async def echo(connection: WebSocket):
    await connection.accept()
    async for text in connection.iter_text():
        await connection.send_text(text)


# --- serving

servers = []


def config(http="httptools", **options):
    """Uvicorn says nothing: what is logged in a node is another suite's subject."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    return uvicorn.Config(app, host=HOST, http=http, log_config=None, **options)


class Server(uvicorn.Server):
    """Tells Erlang where it serves."""

    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        tell("serving", self.servers[0].sockets[0].getsockname()[1])


def run(http):
    """A server as its users run it: in a loop of its own, until somebody ends it.

    As in many a program, something refers to it when it is gone.
    """
    server = Server(config(http, loop="erlang:new_event_loop", port=0))
    servers.append(server)
    server.run()


def end():
    """End what run() and serve() serve, in order: the requests that there are get their answers."""
    for each in servers:
        each.should_exit = True
    servers.clear()


async def serve(fd):
    """A server on a socket that Erlang has bound, in a task. When that is cancelled it ends in order."""
    server = Server(config())
    serving = asyncio.ensure_future(server.serve(sockets=[socket.socket(fileno=fd)]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await serving
        tell("ended")


listening = []


async def serve_protocol(fd, http):
    """Uvicorn's class of protocols without its server, on a socket that Erlang has bound."""
    settings = config(http)
    settings.load()
    state = ServerState()
    listening.append(
        await server.serve(fd, lambda: settings.http_protocol_class(settings, state, {"greeting": "Hello"}))
    )


async def stop_protocol():
    await server.stop_serving(listening.pop())


async def loop_kind():
    return type(asyncio.get_running_loop()).__module__


# --- a client


async def use(port):
    """Everything that the application does."""
    site = f"http://{HOST}:{port}"
    async with httpx.AsyncClient(base_url=site, verify=False, trust_env=False, timeout=30) as client:
        assert (await client.get("/")).json() == {"hello": "world"}
        assert (await client.get("/stock/pears")).json() == {"item": "pears", "count": 3}
        assert (await client.get("/stock/plums")).status_code == 404
        assert (await client.get("/blocking/pears")).json() == {"count": 3, "main": False}
        answer = await client.post("/orders", json={"item": "pears", "count": 2})
        assert (answer.status_code, answer.json()) == (201, {"count": 2, "price": 4})
        assert (await client.post("/orders", json={"item": "pears", "count": "many"})).status_code == 422
        async with client.stream("GET", "/numbers", params={"count": 1000}) as answer:
            assert [int(line) async for line in answer.aiter_lines()] == list(range(1000))
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(client.get, "/stock/pears")
    async with websockets.connect(f"ws://{HOST}:{port}/echo", proxy=None) as connection:
        await connection.send("hello")
        assert await connection.recv() == "hello"


async def ask(port, path="/"):
    """The status of an answer."""
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=30) as client:
        return (await client.get(f"http://{HOST}:{port}{path}")).status_code
