"""Exit 0 when the server in this container is ready. Run with `python -I -S`, which takes 18 ms."""  # noqa: INP001

import os
import sys
from socket import create_connection

with create_connection(("127.0.0.1", int(os.environ.get("PORT") or 8001)), timeout=2) as connection:
    connection.sendall(b"GET /health/ready HTTP/1.0\r\n\r\n")
    answer = connection.makefile("rb").read()
head, _, body = answer.partition(b"\r\n\r\n")
sys.stdout.buffer.write(body)
sys.exit(b" 200 " not in head.split(b"\r\n", 1)[0])
