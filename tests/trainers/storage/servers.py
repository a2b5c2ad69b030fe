"""Servers of object storage on this machine, which fail or stand still when they are told to."""

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator

import fsspec

BUCKET = "bucket"


class Faults:
    """A WSGI application, and what it does instead of answering.

    Attributes:
        fails: number of requests that get a 500; a negative number is all of them.
        fails_every: number of requests of which the last one gets a 500; 0 for none.
        works: number of requests that are answered before all get a 500; negative: all.
        stands: an event that requests which write wait for; None for none.
        reads_stand: whether those that read wait for it too.
        waiting: set when one waits.
        seconds: that each request takes longer.
    """

    def __init__(self, application):
        self._application = application
        self.fails, self.fails_every, self.works = 0, 0, -1
        self.stands, self.reads_stand, self.waiting = None, False, threading.Event()
        self.seconds = 0.0
        self.requests = []

    def __call__(self, environ, start_response):
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if self._is_to_fail():
            _body(environ)
            content = b"" if environ["REQUEST_METHOD"] == "HEAD" else b"a fault"
            start_response("500 Internal Server Error", [("Content-Length", str(len(content)))])
            return [content]
        if self.stands and (self.reads_stand or environ["REQUEST_METHOD"] != "GET"):
            self.waiting.set()
            self.stands.wait(60)
        time.sleep(self.seconds)
        return self._application(environ, start_response)

    def _is_to_fail(self):
        if self.works > 0:
            self.works -= 1
        elif self.works == 0:
            return True
        if self.fails:
            self.fails -= 1
            return True
        return self.fails_every and len(self.requests) % self.fails_every == 0


def _body(environ):
    if environ.get("wsgi.input_terminated"):
        return environ["wsgi.input"].read()
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def _forward(port):
    """A WSGI application that lets another server of this machine answer."""

    def application(environ, start_response):
        headers = {
            key[5:].replace("_", "-"): value
            for key, value in environ.items()
            if key.startswith("HTTP_") and key not in ("HTTP_CONNECTION", "HTTP_TRANSFER_ENCODING")
        }
        if "CONTENT_TYPE" in environ:
            headers["Content-Type"] = environ["CONTENT_TYPE"]
        connection = http.client.HTTPConnection("127.0.0.1", port)
        with contextlib.closing(connection):
            connection.request(
                environ["REQUEST_METHOD"], environ["RAW_URI"], _body(environ), headers
            )
            answer = connection.getresponse()
            content = answer.read()
        start_response(f"{answer.status} {answer.reason}", answer.getheaders())
        return [content]

    return application


@contextlib.contextmanager
def _served(application) -> Iterator[tuple[Faults, str]]:
    """Serves an application with faults; gives these and the server's URL."""
    from werkzeug.serving import make_server

    faults = Faults(application)
    server = make_server("127.0.0.1", 0, faults, threaded=True)
    server.log = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield faults, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def s3() -> Iterator[tuple[Faults, dict[str, str]]]:
    """An S3 server: gives it, and what the environment has to say to reach it."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    with _served(DomainDispatcherApplication(create_backend_app)) as (faults, url):
        yield (
            faults,
            {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            },
        )


@contextlib.contextmanager
def gs() -> Iterator[tuple[Faults, dict[str, str]]]:
    """A server of Google Cloud Storage, likewise."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    try:
        with _served(_forward(server._api._httpd.server_port)) as (faults, url):
            yield faults, {"STORAGE_EMULATOR_HOST": url, "FSSPEC_GS_TOKEN": "anon"}
    finally:
        server.stop()


def new_bucket(kind: str, environment: dict[str, str]) -> str:
    """Makes an empty bucket on a server that this process reaches, and returns its URL."""
    if kind == "gs":
        return f"gs://{BUCKET}"
    # The buckets of moto are those of the process: each server gets one of its own.
    name = f"{BUCKET}-{environment['AWS_ENDPOINT_URL'].rpartition(':')[2]}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"
