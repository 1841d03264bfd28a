"""llmd-epp over TLS and mTLS, with certificates made here, from Python, the gateway and Envoy."""
import os
import socket
import ssl
import subprocess
import time

import grpc
import pytest
import requests

from authority import Authority, openssl
from conftest import Gateway, Picker, binary
from envoy_process import Envoy
from ext_proc import Stream, body_of, config_of
from fake_engine import FakeEngine, response


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority") / "ours", "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority") / "theirs", "theirs")


def secure_picker(started, tmp, *args, endpoints=(("a", 7001, "decode"),)):
    picker = started(Picker(tmp, list(endpoints), "--secure-serving=true", *args, config=config_of()))
    return picker.wait_http(picker.admin_port, "/readyz")


def handshake(port, alpn=("h2",), maximum=None, minimum=None, ciphers=None, cert=None):
    """(version, cipher, ALPN, the server's certificate in DER) of one TLS handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    if maximum:
        context.maximum_version = maximum
    if minimum:
        context.minimum_version = minimum
    if ciphers:
        context.set_ciphers(ciphers)
    if cert:
        context.load_cert_chain(cert / "tls.crt", cert / "tls.key")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, context.wrap_socket(raw) as tls:
        return tls.version(), tls.cipher()[0], tls.selected_alpn_protocol(), tls.getpeercert(binary_form=True)


def channel(picker, root, client=None):
    pair = {"private_key": (client / "tls.key").read_bytes(), "certificate_chain": (client / "tls.crt").read_bytes()} if client else {}
    return grpc.secure_channel(f"127.0.0.1:{picker.grpc_port}", grpc.ssl_channel_credentials(root_certificates=root, **pair))


def route(picker, root, client=None):
    with channel(picker, root, client) as secure, Stream(picker, secure, timeout=10) as stream:
        return stream.headers().body(body_of()).routed()[0].destination


def refused(picker, root, client=None):
    with pytest.raises(grpc.RpcError) as error:
        route(picker, root, client)
    return error.value.code() == grpc.StatusCode.UNAVAILABLE


def test_tls_is_the_default_with_a_certificate_of_its_own(started, tmp_path):
    picker = secure_picker(started, tmp_path)
    version, _, alpn, der = handshake(picker.grpc_port)
    assert (version, alpn) == ("TLSv1.3", "h2")
    pem = ssl.DER_cert_to_PEM_cert(der)
    (tmp_path / "cert.pem").write_text(pem)
    text = openssl("x509", "-in", tmp_path / "cert.pem", "-noout", "-text")
    assert "prime256v1" in text and "IP Address:127.0.0.1" in text
    assert route(picker, pem.encode()) == "127.0.0.1:7001"


def test_clear_text_is_not_taken_on_the_secure_port(started, tmp_path):
    picker = secure_picker(started, tmp_path)
    with pytest.raises(grpc.RpcError), Stream(picker, timeout=5) as stream:
        stream.headers().body(body_of()).routed()


def test_the_health_port_stays_clear_text(started, tmp_path):
    from conformance.test_protocol import health
    picker = secure_picker(started, tmp_path)
    assert health(picker.health_port, "readiness") == 1


def test_a_certificate_from_files_is_shown(started, tmp_path, authority, stranger):
    picker = secure_picker(started, tmp_path, "--cert-path", str(authority.issue(tmp_path / "server", "picker")))
    assert route(picker, authority.cert.read_bytes()) == "127.0.0.1:7001"
    assert refused(picker, stranger.cert.read_bytes())


def test_a_large_body_passes_over_tls(started, tmp_path, authority):
    picker = secure_picker(started, tmp_path, "--cert-path", str(authority.issue(tmp_path / "server", "picker")))
    with channel(picker, authority.cert.read_bytes()) as secure, Stream(picker, secure) as stream:
        data = body_of(5_000_000)
        assert stream.headers().chunks(data, 700_000).routed()[1] == data


def test_mtls_takes_only_clients_of_the_authority(started, tmp_path, authority, stranger):
    picker = secure_picker(started, tmp_path, "--cert-path", str(authority.issue(tmp_path / "server", "picker")),
                           "--client-ca-file", str(authority.cert))
    root = authority.cert.read_bytes()
    assert refused(picker, root)
    assert refused(picker, root, stranger.issue(tmp_path / "stranger", "client"))
    assert route(picker, root, authority.issue(tmp_path / "client", "client")) == "127.0.0.1:7001"


def test_an_oldest_version_is_kept_to(started, tmp_path):
    picker = secure_picker(started, tmp_path, "--tls-min-version", "VersionTLS13")
    assert handshake(picker.grpc_port)[0] == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        handshake(picker.grpc_port, maximum=ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize("args", [(), ("--tls-min-version", "VersionTLS12")])
def test_tls_1_2_is_served_and_nothing_older(started, tmp_path, args):
    picker = secure_picker(started, tmp_path, *args)
    assert handshake(picker.grpc_port, maximum=ssl.TLSVersion.TLSv1_2)[0] == "TLSv1.2"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(picker.grpc_port, maximum=ssl.TLSVersion.TLSv1_1, minimum=ssl.TLSVersion.TLSv1, ciphers="ALL:@SECLEVEL=0")


def test_suites_are_limited(started, tmp_path):
    picker = secure_picker(started, tmp_path, "--tls-cipher-suites", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")
    two = {"maximum": ssl.TLSVersion.TLSv1_2}
    assert handshake(picker.grpc_port, **two)[1] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    with pytest.raises(ssl.SSLError):
        handshake(picker.grpc_port, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256", **two)


def test_a_new_certificate_is_taken_while_streams_run_on(started, tmp_path, authority):
    folder = authority.issue(tmp_path / "server", "first")
    picker = secure_picker(started, tmp_path, "--cert-path", str(folder), "--enable-cert-reload")
    first = handshake(picker.grpc_port)[3]
    with channel(picker, authority.cert.read_bytes()) as secure, Stream(picker, secure) as stream:
        stream.headers()
        authority.issue(folder, "second")
        deadline = time.monotonic() + 10
        while handshake(picker.grpc_port)[3] == first:
            assert time.monotonic() < deadline, "the new certificate is not shown"
            time.sleep(0.05)
        assert stream.body(body_of()).routed()[0].destination == "127.0.0.1:7001"
    assert any(line.get("msg") == "TLS certificate reloaded" for line in picker.json_lines())


def test_a_broken_certificate_leaves_the_old_one(started, tmp_path, authority):
    folder = authority.issue(tmp_path / "server", "first")
    picker = secure_picker(started, tmp_path, "--cert-path", str(folder), "--enable-cert-reload")
    first = handshake(picker.grpc_port)[3]
    (folder / "tls.crt").write_text("nonsense")
    deadline = time.monotonic() + 10
    while not any("the old one stays" in line.get("msg", "") for line in picker.json_lines()):
        assert handshake(picker.grpc_port)[3] == first
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert route(picker, authority.cert.read_bytes())


def test_without_reload_a_certificate_stays(started, tmp_path, authority):
    folder = authority.issue(tmp_path / "server", "first")
    picker = secure_picker(started, tmp_path, "--cert-path", str(folder))
    first = handshake(picker.grpc_port)[3]
    authority.issue(folder, "second")
    os.utime(folder / "tls.crt", (1, 1))
    assert handshake(picker.grpc_port)[3] == first


@pytest.mark.parametrize("args,code,word", [
    (["--secure-serving=false", "--cert-path", "/x"], 2, "--secure-serving=false"),
    (["--enable-cert-reload"], 2, "--cert-path"), (["--tls-min-version", "VersionTLS10"], 2, "VersionTLS10"),
    (["--tls-cipher-suites", "NOPE"], 2, "NOPE"), (["--cert-path", "/nowhere"], 1, "/nowhere/tls.crt"),
    (["--client-ca-file", "/nowhere"], 1, "--client-ca-file")])
def test_settings_that_cannot_be_are_named(args, code, word):
    ports = ["--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0"]
    result = subprocess.run([binary("llmd-epp"), *ports, *args], capture_output=True, text=True, timeout=20)
    assert result.returncode == code and word in result.stderr


async def answer(request, writer):
    return response(200, b'{"object":"text_completion"}')


@pytest.fixture
def engine():
    made = FakeEngine(answer)
    yield made
    made.close()


def gateway_says(started, picker, *args):
    gateway = started(Gateway("--epp", f"127.0.0.1:{picker.grpc_port}", *args))
    gateway.wait_http(gateway.port, "/health")
    deadline = time.monotonic() + 5
    while True:
        reply = requests.post(f"{gateway.url}/v1/completions", json={"model": "m", "prompt": "x"}, timeout=10)
        if reply.status_code == 200 or time.monotonic() > deadline:
            return reply.status_code
        time.sleep(0.2)


def test_the_gateway_asks_a_picker_over_tls(started, tmp_path, authority, stranger, engine):
    folder = authority.issue(tmp_path / "server", "picker")
    picker = secure_picker(started, tmp_path, "--cert-path", str(folder), "--client-ca-file", str(authority.cert),
                           endpoints=[("a", engine.port, "decode")])
    ours = ("--epp-secure", "--epp-cert-path", str(authority.issue(tmp_path / "client", "gateway")))
    assert gateway_says(started, picker, *ours) == 200
    assert gateway_says(started, picker, *ours, "--epp-ca-file", str(authority.cert)) == 200
    assert gateway_says(started, picker, *ours, "--epp-ca-file", str(stranger.cert)) == 503
    assert gateway_says(started, picker, "--epp-secure") == 503


def test_the_gateway_takes_a_self_signed_picker(started, tmp_path, engine):
    picker = secure_picker(started, tmp_path, endpoints=[("a", engine.port, "decode")])
    assert gateway_says(started, picker, "--epp-secure") == 200
    assert gateway_says(started, picker) == 503


@pytest.mark.parametrize("args,word", [(["--epp-ca-file", "/x"], "--epp-secure"), (["--epp-secure"], "--epp"),
                                       (["--epp", "127.0.0.1:1", "--epp-secure", "--epp-ca-file", "/nowhere"], "/nowhere")])
def test_the_gateways_settings_that_cannot_be_are_named(args, word):
    result = subprocess.run([binary("llmd-gateway"), "--port", "0", *args], capture_output=True, text=True, timeout=20)
    assert result.returncode != 0 and word in result.stderr


TRANSPORT = """    connect_timeout: 5s
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: localhost
        common_tls_context:
          alpn_protocols: [h2]
          tls_certificates: [{{certificate_chain: {{filename: {client}/tls.crt}}, private_key: {{filename: {client}/tls.key}}}}]
          validation_context:
            trusted_ca: {{filename: {ca}}}
            match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{exact: localhost}}}}]
    circuit_breakers: {{thresholds: [{{max_connections: 40000, max_pending_requests: 40000, max_requests: 40000, max_retries"""


def test_envoy_asks_a_picker_over_mtls(started, tmp_path, authority, engine):
    picker = secure_picker(started, tmp_path, "--cert-path", str(authority.issue(tmp_path / "server", "picker")),
                           "--client-ca-file", str(authority.cert), endpoints=[("a", engine.port, "decode")])
    plain = TRANSPORT.splitlines()[0] + "\n" + TRANSPORT.splitlines()[-1].replace("{{", "{")
    secure = TRANSPORT.format(client=authority.issue(tmp_path / "client", "envoy"), ca=authority.cert)
    envoy = started(Envoy(tmp_path, picker, edits=[(plain, secure)]))
    envoy.wait_http(envoy.port, "/v1/models")  # the health check passed over mTLS too
    reply = requests.post(f"{envoy.url}/v1/completions", json={"model": "m", "prompt": "x"}, timeout=10)
    assert reply.json() == {"object": "text_completion"}


def get_metrics(picker, **kwargs):
    return requests.get(f"https://127.0.0.1:{picker.admin_port}/metrics", timeout=10, **kwargs).text


def test_the_admin_port_serves_mtls(started, tmp_path, authority, stranger):
    folder = authority.issue(tmp_path / "admin", "admin")
    picker = started(Picker(tmp_path, [("a", 7001, "decode")], "--metrics-cert-dir", str(folder), "--metrics-client-ca-file",
                            str(authority.cert), config=config_of()))
    client = authority.issue(tmp_path / "client", "prometheus")
    pair = (str(client / "tls.crt"), str(client / "tls.key"))
    wait_for_port(picker.admin_port)
    assert "llm_d_epp_extproc_streams_inflight" in get_metrics(picker, verify=str(authority.cert), cert=pair)
    with pytest.raises(requests.RequestException):
        get_metrics(picker, verify=str(authority.cert))
    with pytest.raises(requests.RequestException):
        get_metrics(picker, verify=str(stranger.cert), cert=pair)
    with pytest.raises(requests.RequestException):
        requests.get(f"http://127.0.0.1:{picker.admin_port}/metrics", timeout=10)


def test_the_admin_port_follows_its_certificate(started, tmp_path, authority):
    folder = authority.issue(tmp_path / "admin", "admin")
    picker = started(Picker(tmp_path, [("a", 7001, "decode")], "--metrics-cert-dir", str(folder), config=config_of()))
    wait_for_port(picker.admin_port)
    first = handshake(picker.admin_port, alpn=["http/1.1"])
    assert first[2] == "http/1.1"
    authority.issue(folder, "second")
    deadline = time.monotonic() + 10
    while handshake(picker.admin_port, alpn=["http/1.1"])[3] == first[3]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "llm_d_epp_" in get_metrics(picker, verify=str(authority.cert))


def wait_for_port(port):
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("args,word", [(["--metrics-client-ca-file", "/x"], "--metrics-cert-dir"),
                                       (["--metrics-cert-dir", "/nowhere"], "/nowhere/tls.crt")])
def test_admin_settings_that_cannot_be_are_named(args, word):
    ports = ["--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0", "--secure-serving=false"]
    result = subprocess.run([binary("llmd-epp"), *ports, *args], capture_output=True, text=True, timeout=20)
    assert result.returncode == 1 and word in result.stderr
