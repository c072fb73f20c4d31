"""Calls of all four kinds: grpc_client.py HOST:PORT."""

import queue
import sys
import threading
import time

import grpc

options = [("grpc.default_authority", "grpc.test"), ("grpc.max_receive_message_length", -1)]
channel = grpc.insecure_channel(sys.argv[1], options=options)
unary, down = channel.unary_unary("/test.Kinds/Unary"), channel.unary_stream("/test.Kinds/Down")
up, both = channel.stream_unary("/test.Kinds/Up"), channel.stream_stream("/test.Kinds/Both")

for size in (0, 1, 100_000, 3_000_000):
    message = b"x" * size
    answer, call = unary.with_call(message, timeout=20)
    assert answer == message, size
assert dict(call.trailing_metadata())["forwarded"] == "127.0.0.1"

assert list(down(b"1000")) == [b"%d" % number for number in range(1000)]
assert up(iter([b"a", b"b", b"c"])) == b"a,b,c"

# Each answer comes before the next request is sent.
requests = queue.Queue()
answers = both(iter(requests.get, None))
for number in range(100):
    requests.put(b"%d" % number)
    assert next(answers) == b"%d!" % number
requests.put(None)
assert list(answers) == [] and answers.code() == grpc.StatusCode.OK

try:
    unary(b"fail")
    raise AssertionError("it did not fail")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "it fails, ünd says so", error
    assert dict(error.trailing_metadata())["reason"] == "as asked", error

began = time.monotonic()
try:
    unary(b"hang", timeout=0.5)
    raise AssertionError("it did not time out")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
assert time.monotonic() - began < 5

try:
    channel.unary_unary("/test.Kinds/Nothing")(b"")
    raise AssertionError("there is no such method")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def many():
    for _ in range(50):
        assert unary(b"many", timeout=20) == b"many"


threads = [threading.Thread(target=many) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("all kinds", flush=True)
