"""A certificate authority of the tests' own, and a server certificate for localhost, 127.0.0.1 and ::1."""

import ssl
import subprocess


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    def __init__(self, folder, name):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.ca_file, self.ca_key = folder, folder / "ca.pem", folder / "ca.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", self.ca_key, "-out",
                self.ca_file, "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")

    def issue(self, name, names="DNS:localhost,IP:127.0.0.1,IP:::1", days=2):
        """Paths of a certificate and its key for these subject alternative names."""
        certificate, key, request, extensions = (self.folder / f"{name}.{end}" for end in ("pem", "key", "csr", "ext"))
        extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", request, "-CA", self.ca_file, "-CAkey", self.ca_key, "-CAcreateserial", "-days", str(days), "-out", certificate,
                "-extfile", extensions)
        return certificate, key

    def server(self, name, names="DNS:localhost,IP:127.0.0.1,IP:::1"):
        """An SSL context for a server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name, names))
        return context
