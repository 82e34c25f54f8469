"""Answers HTTP requests, and writes a line to its log for each. By path:

- `/echo` the request's body
- `/env/NAME` a variable of its environment
- `/file/PATH` a file
- `/fail` nothing: it raises an exception
- anything else: hello, with the path
"""

import os
from pathlib import Path

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.wasi_http_types import (
    Fields,
    IncomingBody,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

PIECE = 64 << 10
MOST_AT_ONCE = 4096


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        path = request.path_with_query() or "/"
        print(path, flush=True)
        content = answer(path, request)
        response = OutgoingResponse(Fields())
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            for start in range(0, len(content), MOST_AT_ONCE):
                stream.blocking_write_and_flush(content[start : start + MOST_AT_ONCE])
        OutgoingBody.finish(body, None)


def answer(path: str, request: IncomingRequest) -> bytes:
    match path.removeprefix("/").split("/", 1):
        case ["echo"]:
            return read_all(request.consume())
        case ["env", name]:
            return os.environ.get(name, "").encode()
        case ["file", name]:
            return Path("/" + name).read_bytes()
        case ["fail"]:
            raise RuntimeError("as the client wished")
        case _:
            return f"hello from python: {path}\n".encode()


def read_all(body: IncomingBody) -> bytes:
    content = bytearray()
    with body.stream() as stream:
        while True:
            try:
                content += stream.blocking_read(PIECE)
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    return bytes(content)
                raise
