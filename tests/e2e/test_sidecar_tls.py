"""llmd-sidecar over TLS: towards clients, and towards the engines of either leg."""
import asyncio
import contextlib
import os
import socket
import ssl
import time
import warnings

import pytest
import requests
from authority import Authority
from conftest import PROMPTS, Engine, Sidecar as SidecarProcess, transfer_config
from fake_engine import response
from scripted_sidecar import TwoEvents, answer_decode, answer_prefill, make  # noqa: F401

BOTH = "prefiller,decoder"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority") / "ours", "ours")


@pytest.fixture(scope="module")
def engine_tls(authority):
    return Authority.context(authority.issue(authority.path / "engines", "engine"))


def anyone():
    """A client that believes every certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def believing(authority):
    return ssl.create_default_context(cafile=authority.cert)


def certificate_of(sidecar):
    return ssl.get_server_certificate(("127.0.0.1", sidecar.port))


def disaggregated(sidecar, prefiller):
    return sidecar.post("/v1/completions", {"prompt": "x"}, {"x-prefiller-host-port": prefiller.address})


def test_without_flags_it_serves_tls_with_a_certificate_of_its_own(make):
    p, d = make(answer_prefill), make(answer_decode)
    s = make.sidecar(d.port, tls=anyone())
    assert disaggregated(s, p).status == 200
    assert (len(p.posts()), len(d.posts())) == (1, 1)
    assert s.get("/health").status == 200
    raw = ssl.PEM_cert_to_DER_cert(certificate_of(s))
    assert b"llm-d" in raw or b"llmd" in raw


def test_only_tls_1_2_and_newer(make):
    d = make(answer_decode)
    s = make.sidecar(d.port, tls=anyone())
    warnings.simplefilter("ignore", DeprecationWarning)  # of Python, for what is refused here
    for version, taken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)):
        context = anyone()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", s.port)) as tcp:
            if taken:
                with context.wrap_socket(tcp) as tls:
                    assert tls.version() == version.name.replace("_", ".")
            else:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    context.wrap_socket(tcp)


def test_clear_text_and_silence_on_the_tls_port_hurt_nobody(make):
    d = make(answer_decode)
    s = make.sidecar(d.port, tls=anyone())
    silent = socket.create_connection(("127.0.0.1", s.port))
    with socket.create_connection(("127.0.0.1", s.port), timeout=10) as clear:
        clear.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        told = b"".join(iter(lambda: clear.recv(4096), b""))
        assert told.startswith(b"HTTP/1.1 400 ") and b"https" in told
    with socket.create_connection(("127.0.0.1", s.port), timeout=10) as noise:
        noise.sendall(b"nothing of the kind")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP/" not in b"".join(iter(lambda: noise.recv(4096), b""))
    assert s.get("/health").status == 200
    silent.close()


def test_certificate_from_files_is_followed(make, authority, tmp_path):
    folder = authority.issue(tmp_path / "cert", "first")
    d = make(answer_decode)
    s = make.sidecar(d.port, f"--cert-path={folder}", tls=believing(authority))
    assert s.get("/health").status == 200
    first = certificate_of(s)
    authority.issue(folder, "second")
    deadline = time.monotonic() + 10
    while certificate_of(s) == first:
        assert time.monotonic() < deadline, "the new certificate is never shown"
        time.sleep(0.05)
    assert s.get("/health").status == 200


def test_clients_must_show_a_certificate(make, authority, tmp_path):
    folder, alice = authority.issue(tmp_path / "cert", "sidecar"), authority.issue(tmp_path / "alice", "alice")
    d = make(answer_decode)
    friend = believing(authority)
    friend.load_cert_chain(alice / "tls.crt", alice / "tls.key")
    s = make.sidecar(d.port, f"--tls-cert-file={folder / 'tls.crt'}", f"--tls-key-file={folder / 'tls.key'}",
                     f"--client-ca-file={authority.cert}", tls=friend)
    assert s.get("/health").status == 200
    s.tls = believing(authority)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        s.get("/health")


def test_engines_may_ask_who_we_are(make, authority, tmp_path):
    ours = authority.issue(tmp_path / "ours", "sidecar")
    context = Authority.context(authority.issue(tmp_path / "engine", "engine"))
    context.load_verify_locations(authority.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    p, d = make(answer_prefill, context), make(answer_decode, context)
    flags = [f"--enable-tls={BOTH}", f"--upstream-tls-ca-file={authority.cert}"]
    s = make.sidecar(d.port, *flags, f"--upstream-tls-cert-file={ours / 'tls.crt'}", f"--upstream-tls-key-file={ours / 'tls.key'}")
    assert disaggregated(s, p).status == 200
    assert (len(p.posts()), len(d.posts())) == (1, 1)
    assert disaggregated(make.sidecar(d.port, *flags), p).status == 502
    s = make.sidecar(d.port, *flags, "--upstream-tls-server-name=nobody", f"--upstream-tls-cert-file={ours / 'tls.crt'}",
                     f"--upstream-tls-key-file={ours / 'tls.key'}")
    assert disaggregated(s, p).status == 502
    assert (len(p.posts()), len(d.posts())) == (1, 1)


@pytest.mark.parametrize("flags", [[f"--enable-tls={BOTH}"], ["--enable-tls=prefiller", "--enable-tls=decoder"],
                                   ["-prefiller-use-tls", "-decoder-use-tls=true"]])
def test_both_legs_over_tls_by_a_believed_authority(make, authority, engine_tls, flags):
    p, d = make(answer_prefill, engine_tls), make(answer_decode, engine_tls)
    s = make.sidecar(d.port, *flags, env={"SSL_CERT_FILE": str(authority.cert)})
    assert disaggregated(s, p).status == 200
    assert (len(p.posts()), len(d.posts())) == (1, 1)
    assert s.get("/ready").status == 200
    assert s.get("/v1/models").data == b'{"engine":"decode"}'
    assert s.wait_for("sending request to prefiller")["url"].startswith("https://127.0.0.1:")


@pytest.mark.parametrize("leg", ["prefiller", "decoder"])
def test_one_leg_over_tls(make, engine_tls, leg):
    p = make(answer_prefill, engine_tls if leg == "prefiller" else None)
    d = make(answer_decode, engine_tls if leg == "decoder" else None)
    s = make.sidecar(d.port, f"--enable-tls={leg}", f"--tls-insecure-skip-verify={leg}")
    assert disaggregated(s, p).status == 200
    assert (len(p.posts()), len(d.posts())) == (1, 1)


def test_a_stranger_is_not_believed_and_gets_no_prompt(make, engine_tls):
    p, d = make(answer_prefill, engine_tls), make(answer_decode, engine_tls)
    s = make.sidecar(d.port, f"--enable-tls={BOTH}", "--tls-insecure-skip-verify=decoder")
    reply = disaggregated(s, p)
    assert reply.status == 502 and b"certificate" in reply.data, reply.data
    assert not p.posts() and not d.posts()
    s = make.sidecar(d.port, "--decoder-use-tls")
    reply = s.post("/v1/completions", {"prompt": "x"})
    assert reply.status in (502, 503) and b"certificate" in reply.data, reply.data
    assert s.get("/ready").status == 503
    assert not d.posts()


def test_old_flags_that_skip_verification(make, engine_tls):
    p, d = make(answer_prefill, engine_tls), make(answer_decode, engine_tls)
    s = make.sidecar(d.port, "-prefiller-use-tls", "-decoder-use-tls", "-prefiller-tls-insecure-skip-verify",
                     "-decoder-tls-insecure-skip-verify")
    assert disaggregated(s, p).status == 200


def test_events_come_as_they_are_written(make, engine_tls):
    events = TwoEvents()
    p, d = make(answer_prefill, engine_tls), make(events.answer, engine_tls)
    events.check(make.sidecar(d.port, f"--enable-tls={BOTH}", f"--tls-insecure-skip-verify={BOTH}", tls=anyone()), p)


@pytest.mark.parametrize("leg", ["prefill", "decode"])
@pytest.mark.parametrize("politely", [True, False])
def test_a_client_that_leaves_ends_the_leg(make, engine_tls, leg, politely):
    async def hang(request, writer):
        if request.method == "GET":
            return response()
        await asyncio.sleep(60)

    p = make(hang if leg == "prefill" else answer_prefill, engine_tls)
    d = make(hang if leg == "decode" else answer_decode, engine_tls)
    s = make.sidecar(d.port, f"--enable-tls={BOTH}", f"--tls-insecure-skip-verify={BOTH}", tls=anyone())
    client = s.tls.wrap_socket(socket.create_connection(("127.0.0.1", s.port)))
    client.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nx-prefiller-host-port: {p.address}\r\n"
                   "Content-Length: 2\r\n\r\n{}".encode())
    target = p if leg == "prefill" else d
    deadline = time.monotonic() + 10
    while not target.posts():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    if politely:
        with pytest.raises((ssl.SSLError, OSError)):
            client.settimeout(0.2)
            client.unwrap()  # sends close_notify; no answer to it is owed
            raise ConnectionError
    os.close(client.detach())
    assert target.disconnected.wait(5)
    assert leg == "decode" or not d.posts()


def test_large_bodies_both_ways(make, engine_tls):
    async def long(request, writer):
        return response(body=request.body) if request.method == "POST" else response()

    d = make(long, engine_tls)
    s = make.sidecar(d.port, "--enable-tls=decoder", "--tls-insecure-skip-verify=decoder", tls=anyone())
    body = b'{"prompt":"' + os.urandom(4 << 20).hex().encode() + b'"}'
    reply = s.post("/v1/completions", body)
    assert reply.status == 200 and reply.data == body


def test_the_real_pair_answers_as_one_engine(started, authority, tmp_path):
    """Prefill and decode by the real model, the client's side over TLS."""
    folder = authority.issue(tmp_path / "cert", "sidecar")
    prefill = started(Engine("prefill", "--kv-transfer-config", transfer_config()))
    decode = started(Engine("decode", "--kv-transfer-config", transfer_config()))
    for engine in (prefill, decode):
        engine.wait_http(engine.port, "/health")
    sidecar = started(SidecarProcess("sidecar", decode, f"--cert-path={folder}", "--secure-proxy"))
    asked = requests.Session()
    asked.verify, asked.trust_env = str(authority.cert), False
    url = f"https://127.0.0.1:{sidecar.port}"
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(requests.RequestException):
            if asked.get(url + "/ready", timeout=2).status_code == 200:
                break
        assert time.monotonic() < deadline, sidecar.log()
        time.sleep(0.05)
    body = {"model": "smol", "prompt": PROMPTS["PROMPT_1"], "max_tokens": 16, "temperature": 0}
    direct = requests.post(prefill.url + "/v1/completions", json=body, timeout=60).json()
    routed = asked.post(url + "/v1/completions", json=body, timeout=60,
                        headers={"x-prefiller-host-port": f"127.0.0.1:{prefill.port}"}).json()
    assert routed["choices"][0]["text"] == direct["choices"][0]["text"]
    assert decode.metric("llmd_kv_transfer_blocks_total") > 0
