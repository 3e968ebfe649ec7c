"""Certificates for a federation of one's own: an authority, the server's, and the members' node keys."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from server.superlink import Certificates
from shared.errors import ConfigError
from shared.node_key import make_node_key, read_public_key, write_new
from shared.whole import MAX_NAME, plain_name

DAYS = 365
HERE = ("localhost", "127.0.0.1")  # always: the server asks itself there


def certificates_in(folder: Path) -> Certificates:
    """The server's files in a folder made by ``make_certificates``."""
    members = folder / "members"
    return Certificates(
        folder / "ca.crt", folder / "server.crt", folder / "server.key", members if any(members.glob("*.pub")) else None
    )


def make_certificates(
    folder: Path, members: Sequence[str], hosts: Sequence[str] = (), public: Sequence[Path] = ()
) -> list[Path]:
    """Write ca.crt, server.crt, server.key, members/NAME and members/NAME.pub; returns the paths.

    Of a member that made its key at home, whose NAME.pub is among ``public``, only that is taken in. The authority's
    private key is not kept: to add a name, make new certificates. Members of a folder that has certificates already are
    added to it. Raises ConfigError, and then nothing is written, on a member's name that cannot be a file's, on a
    member who has a key, on a key that is none, on ``hosts`` for certificates that are there.
    """
    there = (folder / "ca.crt").exists()
    if there and hosts:
        raise ConfigError(f"{folder} has certificates already; for other names make new ones in another folder")
    given = {path.stem: read_public_key(path) for path in public}
    names = [*members, *(path.stem for path in public)]
    for place, name in enumerate(names):
        if not plain_name(name) or name.endswith(".pub"):
            raise ConfigError(f"--member: expected a plain name of {MAX_NAME} letters at most, found {name!r}")
        if name in names[:place]:
            raise ConfigError(f"--member: {name!r} is named twice")
    files = [folder / "members" / file for name in names for file in (name, f"{name}.pub")]
    files += [] if there else [folder / "server.crt", folder / "server.key"]
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} exists already; move it away to make a new one")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = [] if there else _server_files(folder, [*hosts, *(host for host in HERE if host not in hosts)])
    made += [path for name in members for path in make_node_key(folder / "members", name)]
    if given:
        (folder / "members").mkdir(exist_ok=True)
    return made + [write_new(folder / "members" / f"{name}.pub", raw, 0o644) for name, raw in given.items()]


def _server_files(folder: Path, hosts: Sequence[str]) -> list[Path]:
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Isthmus federation")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    root = _certificate(issuer, issuer, authority.public_key(), authority.public_key())
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    root = root.add_extension(_usage(certificates=True), critical=True)
    leaf = _certificate(subject, issuer, server.public_key(), authority.public_key())
    leaf = leaf.add_extension(_usage(certificates=False), critical=True)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
    leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    private = server.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    return [
        write_new(folder / "ca.crt", root.sign(authority, hashes.SHA256()).public_bytes(pem), 0o644),
        write_new(folder / "server.crt", leaf.sign(authority, hashes.SHA256()).public_bytes(pem), 0o644),
        write_new(folder / "server.key", private, 0o600),
    ]


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    """With the key identifiers that strict clients ask for (Python's own from 3.13 on)."""
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(minutes=5))
    builder = builder.not_valid_after(now + dt.timedelta(days=DAYS))
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)


def _usage(certificates: bool) -> x509.KeyUsage:
    """An authority signs certificates, a server its handshakes."""
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
