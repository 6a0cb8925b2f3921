"""Key files: both formats come back, and whatever is no key of ours is refused with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from coordinator.signer import keys
from kernel.errors import Code, FarmError
from kernfarm.verify_key import VerifyKey

PASSWORD = b"correct horse"


def password_file(folder: Path, password: bytes = PASSWORD) -> str:
    path = folder / "password"
    path.write_bytes(password + b"\n")
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_a_key_that_was_made_comes_back_and_its_signatures_hold(tmp_path: Path, password: bytes | None) -> None:
    made = keys.generate(tmp_path / "signer.key", password)
    loaded = keys.load(tmp_path / "signer.key", password_file(tmp_path) if password else "")
    assert loaded.public_pem == made.public_pem == (tmp_path / "cosign.pub").read_bytes()
    public = VerifyKey.read(tmp_path / "cosign.pub")
    assert public.signed(loaded.sign(b"data"), b"data")
    assert not public.signed(loaded.sign(b"data"), b"other")
    assert not public.signed(b"no signature", b"data")
    assert made.sign(b"data") == loaded.sign(b"data")
    assert ((tmp_path / "signer.key").stat().st_mode & 0o777, (tmp_path / "cosign.pub").stat().st_mode & 0o777) == (0o600, 0o644)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "password") == ["cosign.pub", "signer.key"]


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    keys.generate(tmp_path / "signer.key")
    before = (tmp_path / "signer.key").read_bytes(), (tmp_path / "cosign.pub").read_bytes()
    with pytest.raises(FarmError) as caught:
        keys.generate(tmp_path / "signer.key")
    assert caught.value.problem.code is Code.CONFLICT
    assert before == ((tmp_path / "signer.key").read_bytes(), (tmp_path / "cosign.pub").read_bytes())


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, seal: serialization.KeySerializationEncryption | None = None) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, seal or serialization.NoEncryption())


P256 = ec.generate_private_key(ec.SECP256R1())


def test_an_encrypted_pkcs8_key_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(pem(P256, serialization.BestAvailableEncryption(PASSWORD)))
    path.chmod(0o600)
    assert keys.load(path, password_file(tmp_path)).public_der
    with pytest.raises(FarmError, match="password is wrong"):
        keys.load(path, password_file(tmp_path, b"wrong"))
    with pytest.raises(FarmError, match="no password_file"):
        keys.load(path)


def test_a_cosign_key_wants_its_password(tmp_path: Path) -> None:
    keys.generate(tmp_path / "cosign.key", PASSWORD)
    with pytest.raises(FarmError, match="password is wrong"):
        keys.load(tmp_path / "cosign.key", password_file(tmp_path, b"wrong"))
    with pytest.raises(FarmError, match="no password_file"):
        keys.load(tmp_path / "cosign.key")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "neither PKCS#8"),
        (b"\0" * 100, "neither PKCS#8"),
        (pem(P256)[:-60], "can't be used"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "not ECDSA P-256"),
        (pem(rsa.generate_private_key(65537, 2048)), "not ECDSA P-256"),
        (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n!!\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "no password_file"),
    ],
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(FarmError, match=words) as caught:
        keys.load(path)
    assert caught.value.problem.where == str(path)


@pytest.mark.parametrize(
    "body", ["e30=", "bm90IGpzb24=", "W10=", "eyJrZGYiOiB7Im5hbWUiOiAicm90MTMifSwgImNpcGhlciI6IHsibmFtZSI6ICJub25lIn19", "!"]
)
def test_a_cosign_frame_around_nothing_is_refused(tmp_path: Path, body: str) -> None:
    path = tmp_path / "key"
    path.write_text(f"-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\n{body}\n-----END ENCRYPTED COSIGN PRIVATE KEY-----\n")
    path.chmod(0o600)
    with pytest.raises(FarmError) as caught:
        keys.load(path, password_file(tmp_path))
    assert caught.value.problem.code is Code.INVALID_ARGUMENT


def readable(path: Path) -> None:
    path.chmod(0o640)


def linked(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (readable, Code.INVALID_ARGUMENT, "others can read"),
        (linked, Code.MISSING_FILE, "cannot read the key"),
        (a_folder, Code.INVALID_ARGUMENT, "not a regular file"),
        (Path.unlink, Code.MISSING_FILE, "cannot read the key"),
    ],
)
def test_a_key_file_that_is_not_ours_alone_is_refused(tmp_path: Path, change: Callable[[Path], None], code: Code, words: str) -> None:
    path = tmp_path / "signer.key"
    keys.generate(path)
    change(path)
    with pytest.raises(FarmError, match=words) as caught:
        keys.load(path)
    assert caught.value.problem.code is code


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signer.key"
    keys.generate(path)
    os.chown(path, 12345, -1)
    with pytest.raises(FarmError, match="belongs to user 12345"):
        keys.load(path)
