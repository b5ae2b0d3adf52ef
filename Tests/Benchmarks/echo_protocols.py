"""The protocols with which ours serves in the benchmarks."""

from erlang import reactor


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
