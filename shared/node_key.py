"""A node's key: what a member proves itself to the server with, and signs its part in secure sums with.

The private half is best made where it stays (``python -m client key``): who ever had it can sign as that member.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.errors import ConfigError

NODE_CURVE = ec.SECP384R1  # Flower's node keys are on it
MOST_KEY = 10_000  # bytes of a file


def make_node_key(folder: Path, name: str) -> list[Path]:
    """Write NAME, for its owner's eyes, and NAME.pub; returns both. Raises ConfigError where one is there already."""
    key = ec.generate_private_key(NODE_CURVE())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    if (folder / f"{name}.pub").exists():  # the half of a key that is elsewhere: none that fits it may take its place
        raise ConfigError(f"{folder / name}.pub exists already; move it away to make a new one")
    folder.mkdir(parents=True, exist_ok=True)
    return [write_new(folder / name, private, 0o600), write_new(folder / f"{name}.pub", public + b"\n", 0o644)]


def read_public_key(path: Path) -> bytes:
    """The bytes of a NAME.pub. Raises ConfigError when it is no node's public key."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_KEY)
        key = serialization.load_ssh_public_key(raw)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: expected a public key of python -m client key, found none ({error})") from None
    if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, NODE_CURVE)):
        raise ConfigError(f"{path}: expected a key on P-384, as python -m client key makes it, found another kind")
    return raw


def write_new(path: Path, raw: bytes, mode: int) -> Path:
    """Never over a file that is there: a lost key locks its owner out. Raises ConfigError."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigError(f"{path} exists already; move it away to make a new one") from None
    with os.fdopen(handle, "wb") as file:
        file.write(raw)
    return path
