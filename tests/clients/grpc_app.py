"""A gRPC server with one method of each kind, whose messages are bytes: grpc_app.py; it prints its port."""

from concurrent import futures

import grpc


def unary(request, context):
    if request == b"fail":
        context.set_trailing_metadata((("reason", "as asked"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "it fails, ünd says so")
    if request == b"hang":
        context.add_callback(lambda: print("cancelled", flush=True))
        while context.is_active():
            context.time_remaining()
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("forwarded", metadata["x-forwarded-for"]),))
    return request


def down(request, context):
    yield from (b"%d" % number for number in range(int(request)))


def up(requests, context):
    return b",".join(requests)


def both(requests, context):
    for request in requests:
        yield request + b"!"


server = grpc.server(
    futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
)
methods = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
}
health = {"Check": grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01")}
server.add_generic_rpc_handlers(
    (
        grpc.method_handlers_generic_handler("test.Kinds", methods),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
    )
)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
