"""The uptimer: an application that loads for a while, then says for how long it has been running.

Until it has loaded it answers 503. Environment:
  VERSION   what it calls itself (default 1)
  LOADING   seconds until it is ready (default 10 for version 1, else 5)
  PORT      where it listens (default 8080)
  FAIL      `exit`: ends at start with code 3; `never`: never becomes ready
"""

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = os.environ.get("VERSION", "1")
LOADING = float(os.environ.get("LOADING") or ("10" if VERSION == "1" else "5"))
PORT = int(os.environ.get("PORT", "8080"))
FAIL = os.environ.get("FAIL", "")
STARTED = time.monotonic()


class Uptimer(BaseHTTPRequestHandler):
    """Answers by HTTP/1.0, as Python's server does by default."""

    def do_GET(self):
        uptime = time.monotonic() - STARTED
        if FAIL == "never" or uptime < LOADING:
            return self.answer(503, f"Uptimer v{VERSION}.0 is loading.\n")
        self.answer(200, f"Uptimer v{VERSION}.0 is running for {uptime - LOADING:.0f} seconds.\n")

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        self.answer(200, f"Uptimer v{VERSION}.0 got {len(body)} bytes.\n")

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


class Server(ThreadingHTTPServer):
    # Python's own 5 are too few for a burst of new connections.
    request_queue_size = 128
    daemon_threads = True


def main():
    print(f"uptimer v{VERSION}.0 starts, listening on {PORT}", flush=True)
    if FAIL == "exit":
        print("cannot open the database", file=sys.stderr, flush=True)
        sys.exit(3)
    server = Server(("0.0.0.0", PORT), Uptimer)
    # As process 1, it would not be ended by a signal that it doesn't handle.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()
