#!/usr/bin/env bash
# asyncio (CPython 3.11) sets TCP_NODELAY on a connection only if its socket names the protocol TCP. Sockets of
# socket.create_server name none (proto=0), and neither do the connections that they accept. uvicorn 0.54.0 with h11 writes
# an answer's head and body apart, so on such a listener, and a connection that stays open, each body waits for the client's
# acknowledgement of the head: some 40 ms on Linux. A listener of loop.create_server or of uvicorn's own does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uvicorn==0.54.0
cat > "$folder/run.py" <<'PY'
import http.client
import socket
import statistics
import threading
import time

import uvicorn


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def milliseconds(listener):
    server = uvicorn.Server(uvicorn.Config(app, http="h11", lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    connection = http.client.HTTPConnection(*listener.getsockname())
    took = []
    for _ in range(20):
        begun = time.perf_counter()
        connection.request("GET", "/")
        connection.getresponse().read()
        took.append(1000 * (time.perf_counter() - begun))
    connection.close()
    server.should_exit = True
    thread.join()
    return statistics.median(took)


unnamed = socket.create_server(("127.0.0.1", 0))
named = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
named.bind(("127.0.0.1", 0))
named.listen()
slow, fast = milliseconds(unnamed), milliseconds(named)
print(f"uvicorn {uvicorn.__version__}: create_server (proto={unnamed.proto}) {slow:.1f} ms, IPPROTO_TCP {fast:.1f} ms")
assert slow > 20 + fast, "the behaviour changed"
PY
"$folder/venv/bin/python" "$folder/run.py"
