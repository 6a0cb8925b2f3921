#!/usr/bin/env bash
# Make what deploy/compose.yaml needs, once: Ray's token, an authority and a server certificate, a caller's token, the signing key.
# Usage: deploy/credentials.sh [FOLDER] [NAME-OF-THE-SERVER...]. What is there already stays. Run it as root: each file then belongs to
# the user of the container that reads it (10001 coordinator and Ray, 10002 signer).
set -euo pipefail
umask 0077
folder=${1:-$(dirname "$(readlink -f "$0")")/credentials}
shift || true
names=(localhost ray "$@")
[ "$(id -u)" = 0 ] || { echo "credentials: run me as root: the containers' users must own their files" >&2; exit 1; }
# The certificate's names, before anything is made.
entries=IP:127.0.0.1
for name in "${names[@]}"; do
    case $name in
        *[!A-Za-z0-9.:-]*) echo "credentials: not the name of a server: $name" >&2; exit 2 ;;
        *[!0-9.]*) [[ $name == *:* ]] && entries+=",IP:$name" || entries+=",DNS:$name" ;;
        *) entries+=",IP:$name" ;;
    esac
done
command -v openssl >/dev/null || { echo "credentials: openssl is missing: apt-get install openssl" >&2; exit 1; }
install -d -m 0755 "$folder"
install -d -m 0700 -o 10002 -g 10000 "$folder/signer"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Whole files only, with owner and mode from the first moment on.
keep() { # owner, mode, source, destination
    install -o "$1" -g 10000 -m "$2" "$3" "$4.new"
    mv "$4.new" "$4"
}
made() { echo "credentials: made $1" >&2; }

if [ ! -e "$folder/ray-token" ]; then
    # Without a line's end: Ray would take it for a part of the token.
    openssl rand -hex 32 | tr -d '\n' >"$work/ray-token"
    keep 10001 0440 "$work/ray-token" "$folder/ray-token"
    made ray-token
fi

if [ ! -e "$folder/ca.pem" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=kernfarm" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout "$work/ca-key.pem" -out "$work/ca.pem" 2>/dev/null
    keep 0 0400 "$work/ca-key.pem" "$folder/ca-key.pem"
    keep 0 0444 "$work/ca.pem" "$folder/ca.pem"
    rm -f "$folder/server.pem"
    made "ca.pem (give it to those who call)"
fi

if [ ! -e "$folder/server.pem" ] || ! openssl x509 -in "$folder/server.pem" -noout -checkend 2592000 >/dev/null; then
    printf '%s\n' "subjectAltName=$entries" basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
        extendedKeyUsage=serverAuth >"$work/extensions"
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=kernfarm coordinator" \
        -keyout "$work/server-key.pem" -out "$work/server.csr" 2>/dev/null
    openssl x509 -req -in "$work/server.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca-key.pem" -CAserial "$work/serial" -CAcreateserial \
        -days 365 -extfile "$work/extensions" -out "$work/server.pem" 2>/dev/null
    keep 10001 0440 "$work/server-key.pem" "$folder/server-key.pem"
    keep 10001 0444 "$work/server.pem" "$folder/server.pem"
    made "server.pem for $entries"
fi

if [ ! -e "$folder/tokens.yaml" ]; then
    token=kft_$(openssl rand -base64 32 | tr '+/' '-_' | tr -d '=\n')
    hash=$(printf %s "$token" | openssl dgst -sha256 -r | cut -d ' ' -f 1)
    printf '%s\n' "$token" >"$work/token"
    printf 'tokens:\n- {"sha256": "%s", "team": "default", "role": "admin", "name": "first-admin"}\n' "$hash" >"$work/tokens.yaml"
    keep 0 0400 "$work/token" "$folder/token"
    keep 10001 0440 "$work/tokens.yaml" "$folder/tokens.yaml"
    made "token (an admin's; kernfarm --token-file)"
fi

if [ ! -e "$folder/signer/signer.key" ]; then
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/signer.key" 2>/dev/null
    openssl pkey -in "$work/signer.key" -pubout -out "$work/cosign.pub"
    keep 10002 0400 "$work/signer.key" "$folder/signer/signer.key"
    keep 0 0444 "$work/cosign.pub" "$folder/cosign.pub"
    made "cosign.pub (kernfarm verify --key)"
fi
