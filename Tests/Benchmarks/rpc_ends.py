"""Chunks from one Python process to another over loopback TCP, ours and grpcio's: prints how many a second.

Called inside the node it reads what Erlang sends.
"""

import subprocess
import sys
import time
from concurrent import futures

PATH = "/bench.Chunks/Stream"


def serve(kind, size):
    """Serve chunks until standard input ends."""
    chunk = b"x" * size

    def chunks(*_arguments):
        while True:
            yield chunk

    if kind == "ours":
        from erlang import rpc

        rpc.advertise("chunks", chunks)
        with rpc.listen(("127.0.0.1", 0)) as listener:
            print(listener.address[1], flush=True)
            sys.stdin.read()
        return
    import grpc

    handler = grpc.unary_stream_rpc_method_handler(chunks)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("bench.Chunks", {"Stream": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0).wait()


def rate(kind, port, seconds):
    """Chunks a second."""
    if kind == "ours":
        from erlang import rpc

        with rpc.connect(("127.0.0.1", port)) as connection, connection.call_stream("chunks") as stream:
            return counted(stream, seconds)
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_stream(PATH)(b"")
        try:
            return counted(call, seconds)
        finally:
            call.cancel()


def counted(chunks, seconds):
    """How many of them come a second, looked at every 100."""
    next(chunks)
    begin = time.perf_counter()
    count = 0
    while (now := time.perf_counter()) < begin + seconds:
        for _ in range(100):
            next(chunks)
        count += 100
    return count / (now - begin)


def drain(chunks):
    """How many chunks Erlang sends, by a call or by a byte channel."""
    return sum(1 for _ in chunks)


def advertise():
    """Serve that to Erlang."""
    from erlang import rpc

    rpc.advertise("bench_drain", drain, mode="client_stream")


def main():
    kind, size, milliseconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    child = subprocess.Popen(
        [sys.executable, __file__, kind, str(size), "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        print(rate(kind, int(child.stdout.readline()), milliseconds / 1000))
    finally:
        child.communicate()


if __name__ == "__main__":
    if sys.argv[3] == "serve":
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        main()
