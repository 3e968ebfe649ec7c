"""A SuperLink's side of joining, with one answer that Flower's SuperNode does not ask for again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flwr.proto.fleet_pb2 import ActivateNodeResponse  # type: ignore[attr-defined]
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse  # type: ignore[attr-defined]


@contextmanager
def failing_superlink(port: int, fails: str) -> Iterator[None]:
    """Listens on loopback while the block runs. ``fails``: "pull" (status 500, always) or "heartbeat" (refused)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            call = self.path.rpartition("/")[2]
            body = {
                "activate-node": ActivateNodeResponse(node_id=7),
                "send-node-heartbeat": SendNodeHeartbeatResponse(success=fails != "heartbeat"),
            }.get(call)
            raw = b"" if body is None else body.SerializeToString()
            self.send_response(500 if (call, fails) == ("pull-messages", "pull") else 200)
            self.send_header("content-length", str(len(raw)))
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
