#!/bin/sh
# Plays QEMU in tests: answers --version, and runs what it is given as -kernel as a shell script.
if [ "$1" = --version ]; then
    echo "${PLAYED_VERSION:-QEMU emulator version 10.0.0}"
    exit 0
fi
while [ "$#" -gt 1 ] && [ "$1" != -kernel ]; do
    shift
done
exec sh "$2"
