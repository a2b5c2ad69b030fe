"""Servers of object storage on this machine, which fail or stand still when they are told to."""

import contextlib
import threading
from collections.abc import Iterator

BUCKET = "bucket"


class Faults:
    """A WSGI application, and what it does instead of answering.

    Attributes:
        fails: number of requests that get a 500; a negative number is all of them.
        stands: an event that requests which write wait for; None for none.
        waiting: set when one waits.
    """

    def __init__(self, application):
        self._application = application
        self.fails, self.stands, self.waiting = 0, None, threading.Event()
        self.requests = []

    def __call__(self, environ, start_response):
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if self.fails:
            self.fails -= 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"a fault"]
        if self.stands and environ["REQUEST_METHOD"] != "GET":
            self.waiting.set()
            self.stands.wait(60)
        return self._application(environ, start_response)


@contextlib.contextmanager
def s3() -> Iterator[tuple[Faults, dict[str, str]]]:
    """An S3 server with a bucket: gives it, and what the environment has to say to reach it."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    faults = Faults(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faults, threaded=True)
    server.log = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        yield faults, environment
    finally:
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def gs() -> Iterator[tuple[None, dict[str, str]]]:
    """A server of Google Cloud Storage with a bucket, likewise; it has no faults."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    port = server._api._httpd.server_port
    try:
        yield None, {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "FSSPEC_GS_TOKEN": "anon"}
    finally:
        server.stop()
