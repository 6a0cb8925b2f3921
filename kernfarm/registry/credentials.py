"""The user's own credentials, where `docker login` put them: read by the docker SDK, from config.json or through credential helpers."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from docker import auth, errors
from docker.utils import config as docker_config

from kernel.errors import Code, FarmError


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user name with a password, or an identity token in place of both. Secrets stay out of its repr, and so out of logs."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def find(host: str) -> Login | None:
    """The login for a registry; None when there is none, which is fine for what anybody may do.

    Raises FarmError(INVALID_ARGUMENT) for a configuration that can't be read or a helper that fails: going on without would only
    move the failure to where nobody can see its reason."""
    place = docker_config.find_config_file()
    if place is None:
        return None
    path = Path(str(place))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a helper is missing is raised too
            entry = auth.AuthConfig.load_config(None, _read(path)).resolve_authconfig(host)
    except (errors.DockerException, ValueError, TypeError, AttributeError, KeyError) as error:
        hint = f"docker login {host}; the helpers are named by credsStore and credHelpers"
        raise FarmError(Code.INVALID_ARGUMENT, f"cannot get credentials for {host}: {error}", where=str(path), hint=hint) from error
    if not entry:
        return None
    # Helpers' answers have capital letters, entries of config.json small ones.
    values = {str(key).lower(): str(value) for key, value in entry.items() if value}
    if values.get("identitytoken"):
        return Login(identity_token=values["identitytoken"])
    if values.get("username"):
        return Login(username=values["username"], password=values.get("password", ""))
    return None


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FarmError(Code.INVALID_ARGUMENT, f"cannot read docker's configuration: {error}", where=str(path)) from error
    if not isinstance(found, dict):
        raise FarmError(Code.INVALID_ARGUMENT, "docker's configuration is no JSON object", where=str(path))
    return found
