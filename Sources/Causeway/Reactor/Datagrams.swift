import CPython
import Glibc
import Python
import Streams

/// A datagram that has to wait.
struct Datagram {
    let bytes: [UInt8]
    /// Whom it goes to, or comes from.
    let peer: SocketAddress
}

/// Sockets of datagrams: each is one call of `data_received`, and what that puts into `write_buffer` is one
/// datagram to whom it came from.
extension Reactor {
    /// How many datagrams one event reads.
    private static let datagramsPerEvent = 16
    /// How many bytes of answers wait for one socket that has no room.
    private static let unsentLimit = 1 << 20

    /// How long a receiver that has no room is given to make some, in nanoseconds.
    private static let pause: Int64 = 5_000_000

    /// Reads what is there. Without the GIL.
    func readDatagrams(_ connection: Connection, isOver: Bool) {
        for number in 0..<Reactor.datagramsPerEvent {
            guard let (memory, index) = buffers.next() else { return }
            var source = SocketAddress()
            switch receiveDatagram(connection.fd, memory, ReadBuffers.size, &source) {
            case .bytes(let size) where size > ReadBuffers.size:
                // Only Unix sockets carry more. What does not fit is lost: no half of a message is delivered.
                add(.failed(Errno(EMSGSIZE)), of: connection)
            case .bytes(let size):
                buffers.fill(size, from: source)
                add(.data(buffer: index), of: connection)
            case .wouldBlock:
                // It was shut down: the poller would tell of that for ever.
                if isOver, number == 0 { add(.endOfStream, of: connection) }
                return
            case .failed(let error): return add(.failed(error), of: connection)
            }
        }
    }

    /// Whether a datagram has to wait: the protocol answers another, or is still in a callback, and `peer` must stay
    /// what it is. Streams are not read then, but datagrams are read several at once.
    func isHeldBack(_ connection: Connection) -> Bool {
        connection.mode != .reading || connection.isInCallback || !connection.heldDatagrams.isEmpty
    }

    func hold(_ buffer: PyPointer, from peer: SocketAddress, for connection: Connection) {
        let fields = buffer.cast(to: ReactorBuffer.self).pointee
        let bytes = Array(UnsafeRawBufferPointer(start: fields.base, count: fields.count))
        connection.heldDatagrams.append(Datagram(bytes: bytes, peer: peer))
    }

    /// Delivers what was held back, as far as the protocol takes it.
    func deliverHeldDatagrams(_ connection: Connection) {
        while !connection.heldDatagrams.isEmpty, connection.isOpen, connection.mode == .reading,
            !connection.isInCallback
        {
            let datagram = connection.heldDatagrams.removeFirst()
            ProtocolObject.setPeer(connection.protocolObject, datagram.peer)
            do throws(PythonError) {
                let buffer = try Object(
                    datagram.bytes.withUnsafeBytes {
                        try? ReactorBuffer.make(state.bufferType, of: $0).take()
                    })
                deliver(buffer.pointer, to: connection)
            } catch {
                fail(connection, during: "data_received")
            }
        }
    }

    /// Sends `write_buffer` as one datagram; false when it has to wait for room.
    func flushDatagram(_ connection: Connection) throws(PythonError) -> Bool {
        guard let buffer = try ProtocolObject.checkedWriteBuffer(connection.protocolObject) else {
            return true
        }
        let size = PyByteArray_Size(buffer)
        if size == 0 { return true }
        let bytes = UnsafeRawBufferPointer(start: PyByteArray_AsString(buffer), count: size)
        let destination = ProtocolObject.peer(connection.protocolObject)
        let outcome = sendDatagram(connection.fd, bytes, to: destination)
        if case .wouldBlock = outcome {
            keep(Datagram(bytes: Array(bytes), peer: destination), for: connection)
        }
        try ProtocolObject.forget(size, of: buffer, connection.protocolObject)
        return finish(outcome)
    }

    /// Sends what has waited; false when there is still no room.
    func sendUnsent(_ connection: Connection) -> Bool {
        while let datagram = connection.unsentDatagrams.first {
            let outcome = datagram.bytes.withUnsafeBytes {
                sendDatagram(connection.fd, $0, to: datagram.peer)
            }
            guard finish(outcome) else { return false }
            connection.unsentDatagrams.removeFirst()
        }
        return true
    }

    /// Counts; false for what has to be sent again. A datagram that the kernel refuses is lost, as one on the way
    /// may be: its socket goes on.
    private func finish(_ outcome: Transfer) -> Bool {
        switch outcome {
        case .bytes(let size): count(inbox.statistics.bytesOut, size)
        case .wouldBlock: return false
        case .failed: count(inbox.statistics.errors)
        }
        return true
    }

    /// Whether a datagram socket waits for a receiver, not for room of its own: for a Unix socket that is full the
    /// poller says all the time that a write would not block. Notes it then, to try again after a while.
    func isStalled(_ connection: Connection) -> Bool {
        guard connection.kind == .datagrams else { return false }
        let destination =
            connection.unsentDatagrams.first?.peer ?? ProtocolObject.peer(connection.protocolObject)
        guard destination.isUnixPath else { return false }
        if !stalled.contains(where: { $0 === connection }) { stalled.append(connection) }
        if retryAt == 0 { retryAt = monotonicNanoseconds() + Reactor.pause }
        return true
    }

    /// The receivers may have room by now. With the GIL.
    func retry() {
        let connections = stalled
        stalled = []
        retryAt = 0
        for connection in connections where connection.isOpen {
            guard connection.mode == .writing || connection.mode == .draining else { continue }
            asCallback {
                write(connection)
                deliverHeldDatagrams(connection)
            }
        }
    }

    private func keep(_ datagram: Datagram, for connection: Connection) {
        let waiting = connection.unsentDatagrams.reduce(0) { $0 + $1.bytes.count }
        guard waiting + datagram.bytes.count <= Reactor.unsentLimit else {
            return count(inbox.statistics.errors)
        }
        connection.unsentDatagrams.append(datagram)
    }
}
