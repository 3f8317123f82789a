"""A Starlette application: a WebSocket, a stream of events, an upload, a background task.

prefork serve examples.starlette_app:app --workers 4
"""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import datetime

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Starlette on prefork</title>
<h1>Worker {pid} answers</h1>
<form id="talk"><label>Say something <input name="text" autocomplete="off"></label>
<button>Send</button></form>
<ul id="said"></ul>
<p>The time, as a stream of events: <output id="clock">none yet</output></p>
<p><a href="/later">A background task</a>, <code>curl -T FILE .../upload</code></p>
<script>
const said = document.getElementById("said");
function note(text) {{
  const line = document.createElement("li");
  line.textContent = text;
  said.append(line);
}}
let socket;
function connect() {{
  const scheme = location.protocol === "https:" ? "wss://" : "ws://";
  socket = new WebSocket(scheme + location.host + "/talk");
  socket.onmessage = (event) => note(event.data);
  // At a reload the server closes with 1012: the client connects to a new worker.
  socket.onclose = (event) => {{ note("closed with " + event.code); setTimeout(connect, 500); }};
}}
connect();
document.getElementById("talk").onsubmit = (event) => {{
  event.preventDefault();
  socket.send(event.target.text.value);
  event.target.reset();
}};
new EventSource("/clock").onmessage = (event) => {{
  document.getElementById("clock").textContent = event.data;
}};
</script></html>
"""


async def index(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE.format(pid=os.getpid()))


async def talk(socket: WebSocket) -> None:
    """Sends each text back, with the worker that has it."""
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"worker {os.getpid()}: {text}")


async def clock(request: Request) -> StreamingResponse:
    """Server-sent events; ?n= of them, without end by default."""
    count = int(request.query_params.get("n", "0"))

    async def events() -> AsyncIterator[str]:
        sent = 0
        while not count or sent < count:
            yield f"data: {datetime.now():%H:%M:%S}\n\n"
            sent += 1
            await asyncio.sleep(0 if count else 1)

    return StreamingResponse(events(), media_type="text/event-stream")


async def upload(request: Request) -> JSONResponse:
    """Size and SHA-256 of the body, which is read as it comes."""
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return JSONResponse({"size": size, "sha256": digest.hexdigest()})


async def later(request: Request) -> Response:
    """Answers at once, and works on: the worker waits for it when it stops."""
    done = request.state.done
    task = BackgroundTask(done.append, datetime.now())
    return Response(f"{len(done)} tasks were done before\n", background=task)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, list[datetime]]]:
    """Runs in each worker, before it is ready and after its last request."""
    yield {"done": []}


app = Starlette(
    routes=[
        Route("/", index),
        Route("/clock", clock),
        Route("/later", later),
        Route("/upload", upload, methods=["POST", "PUT"]),
        WebSocketRoute("/talk", talk),
    ],
    lifespan=lifespan,
)
