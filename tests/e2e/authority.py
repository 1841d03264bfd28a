"""Certificates of an authority made here, by the openssl command."""
import os
import ssl
import subprocess


def openssl(*args):
    return subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, text=True).stdout


class Authority:
    def __init__(self, path, name):
        path.mkdir(parents=True)
        self.path, self.cert, self.key = path, path / "ca.crt", path / "ca.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-keyout", self.key, "-out", self.cert)

    @staticmethod
    def context(folder):
        """What a Python server needs to show what was issued into `folder`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        return context

    def issue(self, folder, name):
        """tls.crt and tls.key for localhost in `folder`, put in place at once as a mounted secret is."""
        folder.mkdir(exist_ok=True, parents=True)
        request, extensions = folder / "req.csr", folder / "ext.cnf"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", folder / "new.key", "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", "2",
                "-extfile", extensions, "-out", folder / "new.crt")
        for kind in ("key", "crt"):
            os.replace(folder / f"new.{kind}", folder / f"tls.{kind}")
        return folder
