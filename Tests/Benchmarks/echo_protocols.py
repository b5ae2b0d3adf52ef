"""The protocols with which ours serves in the benchmarks."""

from erlang import reactor

held = []


class Echo(reactor.Protocol):
    """Writes by the base class."""

    def data_received(self, data):
        self.write_buffer.extend(data)
        return "write_pending"


class Computing(Echo):
    """Computes some 200 microseconds in Python before it answers."""

    def data_received(self, data):
        sum([number * number for number in range(3000)])
        return super().data_received(data)


class SeedEcho(reactor.Protocol):
    """As erlang_python's documentation has it: writes by itself."""

    def data_received(self, data):
        self.write_buffer.extend(data)
        return "write_pending"

    def write_ready(self):
        if not self.write_buffer:
            return "read_pending"
        written = self.write(bytes(self.write_buffer))
        del self.write_buffer[:written]
        return "continue" if self.write_buffer else "read_pending"


def hold_objects(number):
    """Keep the Python objects that so many connections have."""
    for fd in range(1000, 1000 + number):
        protocol = Echo()
        info = {"addr": f"127.0.0.{fd % 10}", "port": 30000 + fd, "type": f"tc{'p'}"}
        protocol.connection_made(fd, info)
        held.append(protocol)
