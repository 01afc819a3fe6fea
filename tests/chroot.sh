#!/bin/bash
# Runs the tests with a Python of Debian sid, in a chroot: for a version that this machine has not.
#   tests/chroot.sh FOLDER [VERSION [ARGUMENT-OF-PYTEST ...]]
# FOLDER is made by the first run, and kept: about 1 GB. VERSION is 3.14 if it is not given, or 3.15.
# It needs root, debootstrap, and a mirror of Debian; what is in /dev, /proc and the package index is this machine's.
set -euo pipefail
folder=$(realpath -m "$1") version=${2:-3.14}
cd "$(dirname "$0")/.."

if [ ! -x "$folder/usr/bin/python$version" ]; then
    debootstrap --variant=minbase --include="ca-certificates,procps,python$version,python$version-venv" \
        sid "$folder" http://deb.debian.org/debian
fi
cp /etc/resolv.conf "$folder/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/"
rm -rf "$folder/root/asynqueue"
mkdir "$folder/root/asynqueue"
git ls-files -z --cached --others --exclude-standard | tar -c --null --ignore-failed-read -T - | tar -x -C "$folder/root/asynqueue"

trap 'umount -R "$folder/dev" "$folder/proc"' EXIT
mount -t proc proc "$folder/proc"
mount --rbind --make-rslave /dev "$folder/dev"
# shellcheck disable=SC2016  # the inner shell expands these
chroot "$folder" bash -euc '
    cd /root/asynqueue
    [ -d "/root/venv$1" ] || "python$1" -m venv "/root/venv$1"
    "/root/venv$1/bin/pip" install -q -e .[mcm,test]
    exec "/root/venv$1/bin/python" -m pytest -p no:cacheprovider "${@:2}"
' bash "$version" "${@:3}"
