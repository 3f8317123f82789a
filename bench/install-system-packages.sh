#!/bin/sh
# Installs what the peers of the bench need, where this user may; else says what is missing. A peer
# that is not there is shown as missing, and the others are measured.
set -u

packages=""
command -v cc >/dev/null 2>&1 || packages="$packages gcc"
command -v nginx >/dev/null 2>&1 || packages="$packages nginx-light"
[ -e /usr/include/ev.h ] || packages="$packages libev-dev"
[ -e /usr/include/openssl/ssl.h ] || packages="$packages libssl-dev"
command -v openssl >/dev/null 2>&1 || packages="$packages openssl"

[ -n "$packages" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >/dev/null 2>&1 && exit 0
fi
echo "bench: not installed:$packages" >&2
exit 0
