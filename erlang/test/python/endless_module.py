"""A module whose import does not end by itself."""

import erlang
import mode_helpers

erlang.send(mode_helpers.listener, "running")
count = 0
while True:
    count += 1
