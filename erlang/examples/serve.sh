#!/bin/sh
# Runs the HTTP server example in a node of its own until Ctrl-C or SIGTERM; what `make run` starts.
# OTP cannot trap SIGINT. With +Bi the node ignores it, and here it becomes the SIGTERM on which the
# node shuts its applications down in order.
# PORT and CAUSEWAY_PYTHON are read by the node from the environment.
cd "$(dirname "$0")/../_build/default/lib/causeway" || exit

erl +Bi -noinput -pa ebin -pa examples -s http_server_example main &
node=$!
trap 'kill -TERM "$node"' INT TERM HUP

# A signal ends `wait` early; then the node is still there to wait for.
while kill -0 "$node" 2>/dev/null; do
    wait "$node"
    status=$?
done
exit "$status"
