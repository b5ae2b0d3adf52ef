#!/bin/sh
# Builds the native library, unless the Makefile has: the hook of rebar.config, for those who have this application
# as a dependency. Its sources are beside this folder, in the same repository.
set -eu
[ -z "${CAUSEWAY_MAKE:-}" ] || exit 0
cd "$(dirname "$0")"

# rebar3 (git_subdir) and mix (sparse) check out this folder only. The repository is there as a whole.
if [ ! -e ../Package.swift ] && [ "$(git config --type=bool core.sparseCheckout 2>/dev/null)" = true ]; then
    git sparse-checkout disable
fi
if [ -e ../Package.swift ]; then
    # Who fetches a dependency does not expect that packages of the system come with it.
    CAUSEWAY_INSTALL=no exec make -C .. native
fi
[ -e priv/libcauseway.so ] && exit
echo "causeway: neither the native library (priv/libcauseway.so) nor the Swift sources to build it from are here." >&2
echo "causeway: depend on the whole repository: {git_subdir, Address, Version, \"erlang\"}" >&2
exit 1
