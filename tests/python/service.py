"""A service of the built programs on a free port of loopback, for the scripts that look at it from outside."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
READY_SECONDS, STOP_SECONDS = 60, 60


def call(url, body=None, content_type="application/json"):
    headers = {"content-type": content_type} if body is not None else {}
    request = urllib.request.Request(url, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read()


def tiny_path():
    return HERE.parent / "fixtures/tiny-chat"


@contextlib.contextmanager
def running(options, data, settings=None):
    """Runs `finetuned serve` on the data folder, with the model `tiny-chat` beside the bundled one; yields its URL. The
    process is `running.pid`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "FINETUNED_DATA_DIR": str(data), "FINETUNED_RUNTIME_DIR": options.runtime,
                   **(settings or {})}
    server = subprocess.Popen([f"{options.bin}/finetuned", "serve", "--listen", f"127.0.0.1:{port}"], env=environment)
    running.pid = server.pid
    try:
        wait_until_ready(url, server)
        add = [f"{options.bin}/finetuned", "models", "add", str(tiny_path()), "--name", "tiny-chat"]
        subprocess.run(add, env=environment, check=True, timeout=60)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(STOP_SECONDS)


def wait_until_ready(url, server):
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            call(f"{url}/readyz")
            return
        except OSError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                sys.exit(f"the service did not become ready: {error}")
            time.sleep(0.1)
