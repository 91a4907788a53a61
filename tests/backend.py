"""A small HTTP service for tests that need one in a process of its own: `python backend.py PORT`.

GET /pid answers its process id, /headers the request's headers as JSON, /slow?until=PATH once there is a file;
/events begins a stream that goes on for ever, and /socket a WebSocket that greets and is silent then.
POST answers how many bytes came. START_AT names a file whose coming it waits for before it listens.
"""

import base64
import hashlib
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


def await_file(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/headers":
            self.answer(json.dumps(self.headers.items()))
        elif url.path == "/slow":
            await_file(parse_qs(url.query)["until"][0])
            self.answer("slow")
        elif url.path == "/events":
            self.stream()
        elif url.path == "/socket":
            self.open_socket()
        else:
            self.answer(str(os.getpid()))

    def do_POST(self) -> None:
        self.answer(str(len(self.rfile.read(int(self.headers["Content-Length"])))))

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            self.wfile.write(b"9\r\ndata: 1\n\n\r\n")
            time.sleep(0.05)

    def open_socket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.send_header(
            "Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        )
        self.end_headers()
        self.wfile.write(b"\x81\x05hello")
        self.close_connection = True
        self.rfile.read()

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_) -> None:
        print("asked for", self.path, flush=True)


class Server(ThreadingHTTPServer):
    request_queue_size = 1024


if __name__ == "__main__":
    if "START_AT" in os.environ:
        await_file(os.environ["START_AT"])
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
