"""The embedded farm's signer: its user, its key, and its way to journal and blobs. A program of its own, as on a real farm."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernel.errors import Code, FarmError
from kernfarm import process
from kernfarm.private import private_folder, write_private
from kernfarm.settings import SignerSettings, plain

log = logging.getLogger(__name__)

# Beside the build steps' 64000; Debian reserves 60000-64999 for such use.
SIGNER_UID = 64001
_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerProgram:
    """How to start the signer, and the socket where it will listen."""

    command: tuple[str, ...]
    socket: Path
    public_key: Path


def prepare(state: Path, environment: Mapping[str, str]) -> SignerProgram:
    """Make what the signer needs in the state folder: folder, key, settings, shared blobs. Raises FarmError when a key can't be made.

    As root the signer gets a user of its own; otherwise it is our user's, which is said, since then whoever runs as us can sign."""
    uid = _user(state, environment)
    own = uid == os.geteuid()
    as_user = () if own else ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs")
    program = (*as_user, sys.executable, "-m", "coordinator.signer")
    folder = state / "signer"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    private_folder(state / "coordinator", None if own else uid)  # where the journal is
    if not own:
        os.chown(folder, uid, uid)
        share_blobs(state / "blobs", uid)
    key = folder / "signer.key"
    if not key.exists():
        done = process.run((*program, "--generate-key", str(key)), env=environment, timeout_seconds=_SECONDS)
        if done.code != 0:
            said = done.output.decode(errors="replace").strip()
            raise FarmError(Code.INVALID_ARGUMENT, f"cannot make a signing key: {said[-500:]}", where=str(key))
    settings = SignerSettings(
        socket=folder / "socket",
        allowed_uid=os.geteuid(),
        key_file=key,
        journal_url=f"sqlite:///{state}/coordinator/journal.sqlite",
        blobs_url=f"file://{state}/blobs",
        builder_id="urn:kernfarm:builder:embedded",
    )
    settings.socket.unlink(missing_ok=True)  # of a farm that died: a socket that is there says that the signer listens
    path = state / "signer.yaml"
    write_private(path, json.dumps(plain(settings), indent=2).encode())
    os.chown(path, uid, -1)
    return SignerProgram(
        command=(*program, "--end-with-parent", "--config", str(path)), socket=settings.socket, public_key=folder / "cosign.pub"
    )


def _user(state: Path, environment: Mapping[str, str]) -> int:
    """The signer's own user where there can be one: root can be another user, if that one can run our program and enter our folder."""
    if os.geteuid() != 0:
        log.warning("the signer runs as your own user: whoever runs as you can use the key. As root it gets a user of its own")
        return os.geteuid()
    probe = "import os, sys, coordinator.signer; os.stat(sys.argv[1])"
    words = ("setpriv", f"--reuid={SIGNER_UID}", f"--regid={SIGNER_UID}", "--clear-groups", sys.executable, "-c", probe, f"{state}/.")
    try:
        done = process.run(words, env=environment, timeout_seconds=_SECONDS)
        said = "" if done.code == 0 else (done.output.decode(errors="replace").strip().splitlines() or ["?"])[-1]
    except FarmError as error:
        said = error.problem.message
    if said:
        log.warning("the signer runs as root: user %d can't run kernfarm or enter %s (%s)", SIGNER_UID, state, said[-300:])
        return os.geteuid()
    return SIGNER_UID


def share_blobs(folder: Path, gid: int) -> None:
    """Let a group read and add blobs. The store's folders are made beforehand, so that files of either user land in shared ones:
    set-group-id passes the group on, and the modes don't hang on anybody's umask."""
    folders = [folder, folder / "blobs", *(folder / "blobs" / f"{number:02x}" for number in range(256))]
    for each in folders:
        each.mkdir(exist_ok=True)
        os.chown(each, -1, gid)
        each.chmod(0o2770)
