import contextlib
import datetime as dt
import ipaddress
import ssl
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store

from server.certs import certificates_in, make_certificates
from shared.errors import ConfigError
from shared.node_key import make_node_key


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs") / "here"
    paths = make_certificates(folder, ["shop", "news"], ["fed.example.org", "127.0.0.1", "::1"])
    return folder, paths


def certificate(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_all_files_are_named_and_only_their_owner_reads_the_keys(made):
    folder, paths = made
    names = [
        "ca.crt",
        "server.crt",
        "server.key",
        *(f"members/{who}" for who in ("shop", "shop.pub", "news", "news.pub")),
    ]
    assert [str(path.relative_to(folder)) for path in paths] == names
    assert all(path.is_file() for path in paths)
    for secret in ("server.key", "members/shop", "members/news"):
        assert stat.S_IMODE((folder / secret).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_server_names_its_hosts_and_is_no_authority(made):
    server = certificate(made[0] / "server.crt")
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fed.example.org", "localhost"]  # it asks itself there
    found = names.get_values_for_type(x509.IPAddress)
    assert found == [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert server.not_valid_after_utc - dt.datetime.now(dt.UTC) > dt.timedelta(days=364)


def test_the_servers_certificate_is_the_authoritys_and_fits_its_key(made):
    folder, _ = made
    authority, server = certificate(folder / "ca.crt"), certificate(folder / "server.crt")
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    server.verify_directly_issued_by(authority)
    with pytest.raises(ValueError):
        authority.verify_directly_issued_by(server)
    key = serialization.load_pem_private_key((folder / "server.key").read_bytes(), password=None)
    assert key.public_key() == server.public_key()


@pytest.mark.parametrize("host", [x509.DNSName("fed.example.org"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
def test_a_strict_client_trusts_the_server_under_its_names(made, host):
    store = Store([certificate(made[0] / "ca.crt")])
    chain = PolicyBuilder().store(store).build_server_verifier(host).verify(certificate(made[0] / "server.crt"), [])
    assert len(chain) == 2


def test_a_key_that_a_member_made_at_home_stays_there(tmp_path):
    private, public = make_node_key(tmp_path / "home", "shop")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="exists already"):
        make_node_key(tmp_path / "home", "shop")
    private.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"shop\.pub exists already"):  # none that does not fit it
        make_node_key(tmp_path / "home", "shop")
    assert not private.exists()
    made = make_certificates(tmp_path / "certs", ["news"], [], [public])
    assert made[-1] == tmp_path / "certs/members/shop.pub"
    assert made[-1].read_bytes() == public.read_bytes()
    assert not (tmp_path / "certs/members/shop").exists()
    with pytest.raises(ConfigError, match="exists already"):
        make_certificates(tmp_path / "certs", [], [], [public])
    with pytest.raises(ConfigError, match="'shop' is named twice"):
        make_certificates(tmp_path / "other", ["shop"], [], [public])
    wrong = tmp_path / "wrong.pub"
    for raw in (b"nonsense", ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )):  # fmt: skip
        wrong.write_bytes(raw)
        with pytest.raises(ConfigError, match=r"wrong\.pub: expected a"):
            make_certificates(tmp_path / "other", [], [], [wrong])
    with pytest.raises(ConfigError, match="found none"):
        make_certificates(tmp_path / "other", [], [], [tmp_path / "missing.pub"])
    assert not (tmp_path / "other").exists()


def test_member_keys_are_openssh_keys_on_p384_and_pairs(made):
    keys = []
    for name in ("shop", "news"):
        private = serialization.load_ssh_private_key((made[0] / "members" / name).read_bytes(), password=None)
        public = serialization.load_ssh_public_key((made[0] / "members" / f"{name}.pub").read_bytes())
        assert isinstance(private.curve, ec.SECP384R1)
        assert private.public_key() == public
        keys.append(public)
    assert keys[0] != keys[1]


def test_members_join_a_folder_whose_certificates_stay(tmp_path):
    make_certificates(tmp_path, ["shop"], ["localhost"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    added = make_certificates(tmp_path, ["news"])
    assert [path.name for path in added] == ["news", "news.pub"]
    assert {path: path.read_bytes() for path in before} == before


def test_a_key_that_is_there_is_never_overwritten(tmp_path):
    make_certificates(tmp_path, ["shop"], ["localhost"])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="shop exists already; move it away"):
        make_certificates(tmp_path, ["news", "shop"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_member_whose_key_is_with_its_owner_gets_no_second_one(tmp_path):
    make_certificates(tmp_path, ["shop"], ["localhost"])
    (tmp_path / "members" / "shop").rename(tmp_path / "away")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"shop\.pub exists already; move it away"):
        make_certificates(tmp_path, ["news", "shop"])
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../shop", "a\\b", "a\0b", "a.pub", 'a"b', "a\nb"])
def test_names_that_cannot_be_a_file_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="--member: expected a plain name of 64 letters"):
        make_certificates(tmp_path / "made", [name], ["localhost"])
    assert not (tmp_path / "made").exists()


def test_members_are_those_whose_keys_are_there(tmp_path):
    make_certificates(tmp_path, [], ["localhost"])
    (tmp_path / "members").mkdir()
    assert certificates_in(tmp_path).members is None  # and then no server starts
    make_certificates(tmp_path, ["shop"])
    assert certificates_in(tmp_path).members == tmp_path / "members"


def test_a_strict_tls_client_shakes_hands(made):
    folder, _ = made
    trust = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    trust.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(folder / "server.crt", folder / "server.key")
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [trust.wrap_bio(back, there, server_hostname="fed.example.org"), own.wrap_bio(there, back, server_side=True)]
    for turn in range(6):
        with contextlib.suppress(ssl.SSLWantReadError):
            ends[turn % 2].do_handshake()
    assert ends[0].getpeercert()["issuer"] == ((("commonName", "Isthmus federation"),),)


def test_other_names_need_other_certificates(tmp_path):
    make_certificates(tmp_path, [])
    server = certificate(tmp_path / "server.crt")
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    with pytest.raises(ConfigError, match="has certificates already"):
        make_certificates(tmp_path, [], ["fed.example.org"])


def test_a_member_is_named_once(tmp_path):
    with pytest.raises(ConfigError, match="'shop' is named twice"):
        make_certificates(tmp_path / "made", ["shop", "shop"])
    assert not (tmp_path / "made").exists()
