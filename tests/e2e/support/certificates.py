"""A certificate authority of the tests' own, and what it issues: good certificates, and those that must be refused."""

import ssl
import subprocess

NAMES = "DNS:localhost,IP:127.0.0.1,IP:::1"
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
IS_AUTHORITY = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """With an issuer it is an intermediate one: its ca_file is its own certificate, which the issuer signed."""

    def __init__(self, folder, name, issuer=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.ca_file, self.ca_key = folder, folder / "ca.pem", folder / "ca.key"
        if issuer:
            self.ca_file, self.ca_key = issuer.sign(name, IS_AUTHORITY)
        else:
            openssl("req", "-x509", *CURVE, "-days", "2", "-keyout", self.ca_key, "-out", self.ca_file, "-subj", f"/CN={name}",
                    *(part for line in IS_AUTHORITY.split() for part in ("-addext", line)))

    def sign(self, name, extensions, days=2, start=None, end=None):
        """Paths of a certificate with these extensions and its key. start and end (YYYYMMDDHHMMSSZ) take the place of days."""
        certificate, key, request, extension_file = (self.folder / f"{name}.{end}" for end in ("pem", "key", "csr", "ext"))
        extension_file.write_text(extensions)
        openssl("req", *CURVE, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        if start:
            configuration, index = self.folder / "ca.cnf", self.folder / "index.txt"
            index.touch()
            configuration.write_text(f"[ca]\ndefault_ca=this\n[this]\ndatabase={index}\nrand_serial=yes\nnew_certs_dir={self.folder}\ndefault_md=sha256\n"
                                     "unique_subject=no\npolicy=any\n[any]\ncommonName=supplied\n")
            openssl("ca", "-batch", "-notext", "-config", configuration, "-cert", self.ca_file, "-keyfile", self.ca_key, "-in", request, "-out", certificate,
                    "-startdate", start, "-enddate", end, "-extfile", extension_file)
        else:
            openssl("x509", "-req", "-in", request, "-CA", self.ca_file, "-CAkey", self.ca_key, "-CAcreateserial", "-days", str(days), "-out", certificate,
                    "-extfile", extension_file)
        return certificate, key

    def issue(self, name, names=NAMES, usage="serverAuth", **validity):
        """Paths of a certificate and its key for these subject alternative names (None: without)."""
        alternatives = f"subjectAltName={names}\n" if names else ""
        return self.sign(name, f"{alternatives}extendedKeyUsage={usage}\n", **validity)

    def self_signed(self, name, names=NAMES):
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        openssl("req", "-x509", *CURVE, "-days", "2", "-keyout", key, "-out", certificate, "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}")
        return certificate, key

    def server(self, name, names=NAMES):
        """An SSL context for a server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name, names))
        return context
