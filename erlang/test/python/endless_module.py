"""A module whose import does not end by itself."""

import mode_helpers

import erlang

erlang.send(mode_helpers.listener, "running")
count = 0
while True:
    count += 1
