"""The real Envoy, with one of the configurations that the project ships."""
import pathlib
import shutil
import sys

from conftest import ROOT, Process, free_port


def envoy_binary():
    candidates = list(pathlib.Path(sys.prefix).glob("lib/python*/site-packages/envoy/_bin/envoy"))
    candidates += list((ROOT / ".deps/venv").glob("lib/python*/site-packages/envoy/_bin/envoy"))
    found = str(candidates[0]) if candidates else shutil.which("envoy")
    assert found, "Envoy is not installed: run scripts/setup.sh"
    return found


class Envoy(Process):
    """`edits` are (old, new) of the configuration's text, each of which must apply."""

    def __init__(self, tmp, picker, file="envoy.yaml", edits=()):
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        text = (ROOT / "deploy/envoy" / file).read_text()
        ports = [("port_value: 8081", f"port_value: {self.port}"), ("port_value: 19000", f"port_value: {self.admin_port}"),
                 ("port_value: 9002", f"port_value: {picker.grpc_port}")]
        for old, new in [*ports, *edits]:
            assert old in text, old
            text = text.replace(old, new)
        path = tmp / f"envoy-{self.port}.yaml"
        path.write_text(text)
        super().__init__("envoy", [envoy_binary(), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "-l", "warn"])

    def access(self, request_id):
        for line in self.json_lines():
            if line.get("rid") == request_id:
                return line
        return None
