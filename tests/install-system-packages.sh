#!/bin/sh
# Installs the programs that some tests talk to, where this user may; without the right to, it says
# so, and those tests skip with a reason. In CI (CI=true) what is missing is an error.
set -u

packages=""
need() { command -v "$1" >/dev/null 2>&1 || packages="$packages $2"; }
need cc "gcc libc6-dev"
headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -e "$headers/Python.h" ] || packages="$packages python3-dev"
need git git
need nginx nginx-light
need strace strace
need valgrind valgrind
need tmux tmux
need ip iproute2
need tshark tshark
need openssl openssl
need setpriv util-linux
need unshare util-linux
need systemd-analyze systemd
need haproxy haproxy
need curl curl
need wrk wrk
need go golang-go
need node nodejs
need java default-jdk-headless
need ab apache2-utils
need slowhttptest slowhttptest
need chromium chromium
need logrotate logrotate
need groff groff-base
need systemd-sysusers systemd
need systemd-tmpfiles systemd

[ -n "$packages" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    install() { apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1; }
    apt-get update -qq >/dev/null 2>&1
    # All at once is faster; but one that this system does not have would stop all others.
    install $packages && exit 0
    missing=""
    for package in $packages; do install "$package" || missing="$missing $package"; done
    packages=$missing
    [ -n "$packages" ] || exit 0
fi
echo "tests: not installed:$packages" >&2
[ "${CI:-}" = true ] && exit 1
exit 0
