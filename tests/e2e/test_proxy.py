"""The reverse proxy of docs/deployment.md, by a real nginx: what it lets through, and as what."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from support.browser import served
from support.proxy import NGINX, federation_door, proxy

from server.certs import make_certificates
from shared.http import Live, new_app
from shared.processes import free_port

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="no nginx on this machine")]


class Echo(BaseHTTPRequestHandler):
    """Answers each request with its path."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        raw = self.path.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


def test_only_what_members_use_gets_to_the_superlink(tmp_path):
    folder, port = tmp_path / "certs", free_port()
    make_certificates(folder, ["video"])
    superlink = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.crt", folder / "server.key")
    superlink.socket = tls.wrap_socket(superlink.socket, server_side=True)
    threading.Thread(target=superlink.serve_forever, daemon=True).start()
    trust = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    try:
        with (
            federation_door(tmp_path / "nginx", folder, superlink.server_port, port),
            httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust, trust_env=False) as client,
        ):
            answer = client.post("/v1/fleet/pull-messages", content=bytes(6 * 2**20))  # more than any piece
            assert (answer.status_code, answer.text) == (200, "/v1/fleet/pull-messages")
            for path in (
                "/v1/control/list-runs",
                "/v1/runtime/acquire-task",
                "/health",
                "/docs",
                "/",
                "/v1/fleet/..%2fcontrol/list-runs",
                "/v1/fleet/%2e%2e/control/list-runs",
                "/v1/fleet//%2e%2e/control/list-runs",
            ):
                assert client.post(path).status_code == 404, path
            # What is let through is the path that was looked at, not the one that was sent.
            assert client.post("/v1/control/..%2ffleet/get-run").text == "/v1/fleet/get-run"
    finally:
        superlink.shutdown()
        superlink.server_close()


def test_a_domains_door_behind_a_password(tmp_path):
    certificates, port = tmp_path / "certs", free_port()
    make_certificates(certificates, [], ["rec.example.org"])
    (tmp_path / "staff").write_text("ann:{PLAIN}secret\n")
    app = new_app("a door", "1", None)

    @app.post("/api/ask")
    def ask() -> dict[str, str]:
        return {"answer": "yes"}

    live, stopped = Live(), threading.Event()
    app.add_api_route("/api/events", lambda: live.response(stopped.is_set))

    trust = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    with served(app) as url:
        own = url.removeprefix("http://")
        instead = {
            "listen 443": f"listen {port}",
            "127.0.0.1:8100": own,
            "/etc/isthmus/rec.crt": str(certificates / "server.crt"),
            "/etc/isthmus/rec.key": str(certificates / "server.key"),
            "/etc/isthmus/staff": str(tmp_path / "staff"),
        }
        with (
            proxy(tmp_path / "nginx", port, "domain", instead),
            httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust, trust_env=False) as client,
        ):
            headers = {"host": "rec.example.org"}
            assert client.post("/api/ask", headers=headers).status_code == 401
            client.auth = ("ann", "secret")
            assert client.post("/api/ask", headers=headers).json() == {"answer": "yes"}  # a program tells no Origin
            page = headers | {"origin": "https://rec.example.org"}
            assert client.post("/api/ask", headers=page).json() == {"answer": "yes"}
            for origin in ("https://evil.example.org", "null", "http://rec.example.org", url):
                assert client.post("/api/ask", headers=headers | {"origin": origin}).status_code == 403, origin
            assert httpx.post(f"{url}/api/ask", headers=page, trust_env=False).status_code == 403  # hence the proxy
            with client.stream("GET", "/api/events", headers=page) as events:
                lines = events.iter_lines()
                assert next(lines) == ": hello"  # and it is not kept back until there is more
                live.tell("items", {"count": 2})
                assert [next(lines) for _ in range(3)] == ["", "event: items", 'data: {"count": 2}']
                stopped.set()
