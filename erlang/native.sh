#!/bin/sh
# Builds the native library, unless the Makefile has: the hook of both rebar.config, for who has this application
# as a dependency. Its sources are beside this folder, in the same repository.
set -eu
[ -z "${CAUSEWAY_MAKE:-}" ] || exit 0
cd "$(dirname "$0")"

if [ -e ../Package.swift ]; then
    # Who fetches a dependency does not expect that packages of the system come with it.
    CAUSEWAY_INSTALL=no exec make -C .. native
fi
[ -e priv/libcauseway.so ] && exit
echo "causeway: here are neither the native library (priv/libcauseway.so) nor the Swift sources to build it from:" >&2
echo "causeway: depend on the whole repository, as in {causeway, {git, Address, {tag, Version}}}" >&2
exit 1
