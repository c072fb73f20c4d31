"""An application on Python's own server: app.py VERSION HTTP-VERSION REPORT-FILE; it prints its port."""

import http.server
import pathlib
import sys
import time

VERSION, PROTOCOL, REPORT = sys.argv[1:4]
PAGE = pathlib.Path(__file__).with_name("page.html").read_bytes()
BIG = bytes(range(256)) * 20_000


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = PROTOCOL

    def answer(self, body, status=200, **fields):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Version", VERSION)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/page":
            self.answer(PAGE, Content_Type="text/html")
        elif path == "/big":
            self.answer(BIG)
        elif path == "/redirect":
            self.answer(b"", 302, Location="/cookies", Set_Cookie="visited=yes; Path=/")
        elif path == "/cookies":
            self.answer(self.headers.get("Cookie", "").encode())
        elif path == "/index":
            self.answer(b'<a href="/hello">1</a> <a href="/big">2</a>', Content_Type="text/html")
        elif path == "/events":
            self.events()
        elif path == "/stream":
            self.pieces()
        else:
            self.answer(f"hello from {VERSION}".encode())

    do_HEAD = do_GET

    def do_POST(self):
        body = self.body()
        if self.path == "/report":
            pathlib.Path(REPORT).write_bytes(body)
        self.answer(body)

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def events(self):
        """Five events, a tenth of a second apart, and then silence: nobody may wait for the end."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for number in range(5):
            self.wfile.write(f"id: {number}\ndata: event {number}\n\n".encode())
            time.sleep(0.1)
        time.sleep(30)
        self.close_connection = True

    def pieces(self):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for number in range(10):
            self.wfile.write(f"piece {number}\n".encode())
            time.sleep(0.05)
        self.close_connection = True

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
