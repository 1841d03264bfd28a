"""A collector of spans that speaks every OTLP protocol."""
import base64
import concurrent.futures
import http.server
import json
import threading

import grpc
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

from authority import Authority


class Collector:
    """Takes spans by every OTLP protocol.

    The servers' threads keep bytes and the test's thread decodes them: the messages of Python's protobuf are not safe to read
    in one thread while another one decodes.
    """

    def __init__(self, pair=None):
        """`pair`: folder with tls.crt and tls.key; without it the servers speak clear text."""
        self.lock, self.bodies, self.headers = threading.Lock(), [], []
        handler = grpc.method_handlers_generic_handler(
            "opentelemetry.proto.collector.trace.v1.TraceService",
            {"Export": grpc.unary_unary_rpc_method_handler(
                self.export, request_deserializer=None, response_serializer=None)})
        self.grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        self.grpc.add_generic_rpc_handlers((handler,))
        if pair:
            files = [((pair / "tls.key").read_bytes(), (pair / "tls.crt").read_bytes())]
            self.grpc_port = self.grpc.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(files))
        else:
            self.grpc_port = self.grpc.add_insecure_port("127.0.0.1:0")
        self.grpc.start()
        outer = self

        class Post(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.take(body, self.headers)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Post)
        if pair:
            self.http.socket = Authority.context(pair).wrap_socket(self.http.socket, server_side=True)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def export(self, body, context):
        self.take(body, dict(context.invocation_metadata()))
        return b""  # An ExportTraceServiceResponse without rejections.

    def take(self, body, headers):
        with self.lock:
            self.bodies.append(body)
            self.headers.append({k.lower(): v for k, v in headers.items()})

    def requests(self):
        with self.lock:
            taken = list(zip(self.bodies, self.headers))
        return [decoded(body, is_json=headers.get("content-type") == "application/json") for body, headers in taken]

    def spans(self):
        return [s for r in self.requests() for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]

    def stop(self):
        self.grpc.stop(0)
        self.http.shutdown()


def decoded(body, *, is_json):
    if not is_json:
        return service.ExportTraceServiceRequest.FromString(body)
    message = json.loads(body)
    # JSON has ids in hex where the generic mapping expects base64.
    for span in [s for rs in message["resourceSpans"] for ss in rs["scopeSpans"] for s in ss["spans"]]:
        for key in {"traceId", "spanId", "parentSpanId"} & span.keys():
            span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    return json_format.ParseDict(message, service.ExportTraceServiceRequest())
