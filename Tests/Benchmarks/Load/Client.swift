import Glibc
import Streams

/// Connections that each send a message, wait until it has come back, and send the next.
final class Client {
    private let target: Target
    private let poller: Poller
    private var connections: [Connection] = []
    private let message: [UInt8]
    private var scratch: [UInt8]
    /// Messages that came back.
    private(set) var count = 0
    /// How long each took, in nanoseconds.
    private(set) var latencies = Latencies()
    /// Every message on a connection of its own.
    var reconnects = false

    private struct Connection {
        var fd: Int32
        var unsent = 0
        var unreceived = 0
        var since: Int64 = 0
        var interest = Poller.Interest.read
    }

    init(_ target: Target) throws {
        self.target = target
        poller = try Poller(capacity: 512)
        message = [UInt8](repeating: UInt8(ascii: "x"), count: target.size)
        scratch = [UInt8](repeating: 0, count: 1 << 16)
        for index in 0..<target.connections {
            connections.append(Connection(fd: try connected(to: target.port)))
            try add(index)
        }
    }

    deinit { for connection in connections { close(connection.fd) } }

    /// Starts to count anew.
    func forget() {
        count = 0
        latencies = Latencies()
    }

    /// Runs for so long; returns how long it was, in seconds.
    @discardableResult
    func run(milliseconds: Int) throws -> Double {
        let start = monotonicNanoseconds()
        let end = start + Int64(milliseconds) * 1_000_000
        for index in connections.indices where connections[index].unreceived == 0 { try send(index) }
        while monotonicNanoseconds() < end { try turn(isLast: false) }
        return Double(monotonicNanoseconds() - start) / 1e9
    }

    /// One message there and back on each connection.
    func runOnce() throws {
        for index in connections.indices { try send(index) }
        while count < connections.count { try turn(isLast: true) }
    }

    private func turn(isLast: Bool) throws {
        let ready = poller.wait(milliseconds: 1000)
        for number in 0..<ready {
            let event = poller.event(number)
            let index = Int(event.token.slot)
            if connections[index].unsent > 0 {
                if event.isWritable { try write(index) }
            } else if event.isReadable, try receive(index), !isLast {
                if reconnects { try reconnect(index) }
                try send(index)
            }
        }
    }

    private func send(_ index: Int) throws {
        connections[index].unsent = target.size
        connections[index].unreceived = target.size
        // A connection's time begins before it is made.
        if !reconnects || connections[index].since == 0 { connections[index].since = monotonicNanoseconds() }
        try write(index)
    }

    private func write(_ index: Int) throws {
        let unsent = connections[index].unsent
        let sent = message.withUnsafeBytes { bytes in
            Glibc.send(
                connections[index].fd, bytes.baseAddress.map { $0 + (target.size - unsent) }, unsent,
                Int32(MSG_NOSIGNAL))
        }
        if sent < 0, errno != EAGAIN { throw Failure("send: \(String(cString: strerror(errno)))") }
        connections[index].unsent -= max(0, sent)
        try wait(index, for: connections[index].unsent > 0 ? .write : .read)
    }

    /// Whether a whole message has come back.
    private func receive(_ index: Int) throws -> Bool {
        let received = scratch.withUnsafeMutableBytes {
            recv(connections[index].fd, $0.baseAddress, $0.count, 0)
        }
        if received == 0 { throw Failure("the server has closed a connection") }
        if received < 0 {
            if errno == EAGAIN { return false }
            throw Failure("recv: \(String(cString: strerror(errno)))")
        }
        connections[index].unreceived -= received
        guard connections[index].unreceived <= 0 else { return false }
        count += 1
        latencies.add(monotonicNanoseconds() - connections[index].since)
        return true
    }

    private func reconnect(_ index: Int) throws {
        poller.remove(connections[index].fd)
        close(connections[index].fd)
        let start = monotonicNanoseconds()
        connections[index] = Connection(fd: try connected(to: target.port), since: start)
        try add(index)
    }

    private func add(_ index: Int) throws {
        try poller.add(
            connections[index].fd, token: Poller.Token(slot: UInt32(index), generation: 0), interest: .read)
    }

    private func wait(_ index: Int, for interest: Poller.Interest) throws {
        guard connections[index].interest != interest else { return }
        connections[index].interest = interest
        try poller.modify(
            connections[index].fd, token: Poller.Token(slot: UInt32(index), generation: 0), interest: interest
        )
    }
}

/// What ends a run.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// How long messages took, in steps of 1/16 of a power of two.
struct Latencies {
    private var counts = [Int](repeating: 0, count: 64 * 16)
    private var total = 0

    mutating func add(_ nanoseconds: Int64) {
        counts[step(of: max(16, nanoseconds))] += 1
        total += 1
    }

    private func step(of value: Int64) -> Int {
        let power = 63 - value.leadingZeroBitCount
        return power * 16 + Int(value >> (power - 4)) - 16
    }

    /// The time, in microseconds, that this part of all messages did not take longer than.
    func quantile(_ part: Double) -> Double {
        var left = Int((Double(total) * part).rounded(.up))
        for (step, count) in counts.enumerated() {
            left -= count
            if left <= 0 { return Double((16 + step % 16 + 1) << (step / 16)) / 16 / 1000 }
        }
        return .infinity
    }
}
