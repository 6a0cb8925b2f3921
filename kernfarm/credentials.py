"""What a client shows and whom it trusts: from flags, the environment, a file of farms, or the embedded farm's folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import yaml

from kernel.errors import Code, FarmError
from kernfarm.private import read_private

_FIELDS = ("ca", "token_file", "cert", "key")
_VARIABLES = {"ca": "KERNFARM_CA", "token_file": "KERNFARM_TOKEN_FILE", "cert": "KERNFARM_CERT", "key": "KERNFARM_KEY"}
FOLDER = "credentials"
"""Of an embedded farm, in its state folder: ca.pem and token are what a client needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """`ca`: PEM of the authorities that may vouch for the farm (None: those of the system); `certificate` and `key`: PEM, for farms that
    ask for one; `token`: "" for none. The secrets are left out of what is printed of it."""

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)

    def channel(self, address: str) -> Any:
        """The grpc.ChannelCredentials for an address: TLS always, but for a Unix socket. gRPC itself keeps a token off any other line."""
        if address.startswith("unix:"):
            channel = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
        else:
            channel = grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)
        if not self.token:
            return channel
        return grpc.composite_channel_credentials(channel, grpc.access_token_call_credentials(self.token))


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Files that credentials are in; None for those that are not given."""

    ca: Path | None = None
    token_file: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def find(address: str, *, flags: Places, environment: Mapping[str, str], state: Path | None) -> Credentials:
    """Credentials for a farm. Each item comes from the first of: flags, environment, `kernfarm/farms.yaml` in the XDG config folder under
    the farm's address, and, when the farm is the embedded one of `state`, its folder. Raises FarmError: MISSING_FILE, INVALID_ARGUMENT."""
    sources = [flags, _of_environment(environment), _of_config(address, environment), _of_state(address, state)]
    chosen = {name: next((path for each in sources if (path := getattr(each, name)) is not None), None) for name in _FIELDS}
    token = environment.get("KERNFARM_TOKEN", "").strip() if flags.token_file is None else ""
    return read(Places(**chosen), token=token)


def read(places: Places, *, token: str = "") -> Credentials:
    """Credentials from files; a `token` that is given wins over the file."""
    if (places.cert is None) != (places.key is None):
        raise FarmError(Code.INVALID_ARGUMENT, "a client's certificate and its key go together", where="--cert, --key")
    if not token and places.token_file is not None:
        token = read_private(places.token_file, "the token").decode("utf-8", errors="replace").strip()
        if not token:
            raise FarmError(Code.INVALID_ARGUMENT, "the file holds no token", where=str(places.token_file))
    if not token.isascii() or not token.isprintable():
        # The message does not repeat it.
        raise FarmError(Code.INVALID_ARGUMENT, "this is no token: it holds line breaks or letters that no token has", where=_place(places))
    return Credentials(
        ca=_public(places.ca, "the farm's authority"),
        certificate=_public(places.cert, "the certificate"),
        key=read_private(places.key, "the private key") if places.key is not None else None,
        token=token,
    )


def _place(places: Places) -> str:
    return str(places.token_file) if places.token_file is not None else "KERNFARM_TOKEN"


def embedded(state: Path) -> Places:
    """Where an embedded farm keeps what its clients need."""
    return Places(ca=state / FOLDER / "ca.pem", token_file=state / FOLDER / "token")


def _of_environment(environment: Mapping[str, str]) -> Places:
    found = {name: Path(environment[variable]) for name, variable in _VARIABLES.items() if environment.get(variable)}
    return Places(**found)


def _of_config(address: str, environment: Mapping[str, str]) -> Places:
    """`farms.yaml`: addresses, each with ca, token_file, cert, key; relative paths are relative to the file."""
    base = environment.get("XDG_CONFIG_HOME") or os.path.join(environment.get("HOME") or str(Path.home()), ".config")  # noqa: PTH118
    path = Path(base) / "kernfarm/farms.yaml"
    try:
        farms = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Places()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FarmError(Code.INVALID_ARGUMENT, f"cannot be read: {error}", where=str(path)) from error
    entry = farms.get(address) if isinstance(farms, dict) else None
    if entry is None:
        return Places()
    if not isinstance(entry, dict) or not set(entry) <= set(_FIELDS) or not all(isinstance(value, str) for value in entry.values()):
        hint = f"known: {', '.join(_FIELDS)}, each the name of a file"
        raise FarmError(Code.INVALID_ARGUMENT, f"the entry of {address} has something else in it", where=str(path), hint=hint)
    return Places(**{name: path.parent / Path(value).expanduser() for name, value in entry.items()})


def _of_state(address: str, state: Path | None) -> Places:
    """Only for the address that the embedded farm has written down: its token is nobody else's business."""
    if state is None:
        return Places()
    try:
        mine = (state / "address").read_text().strip()
    except OSError:
        return Places()
    return embedded(state) if mine == address else Places()


def _public(path: Path | None, what: str) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise FarmError(Code.MISSING_FILE, f"cannot read {what}: {error.strerror}", where=str(path)) from error
