import CPython
import Glibc
import Python
import Streams

/// An answer to a datagram for which there was no room yet.
struct Datagram {
    let bytes: [UInt8]
    let destination: SocketAddress
}

/// Sockets of datagrams: each is one call of `data_received`, and what that puts into `write_buffer` is one
/// datagram to whom it came from.
extension Reactor {
    /// How many datagrams one event reads.
    private static let datagramsPerEvent = 16
    /// How many bytes of answers wait for one socket that has no room.
    private static let unsentLimit = 1 << 20

    /// Reads what is there. Without the GIL.
    func readDatagrams(_ connection: Connection) {
        for _ in 0..<Reactor.datagramsPerEvent {
            guard let (memory, index) = buffers.next() else { return }
            var source = SocketAddress()
            switch receiveDatagram(connection.fd, memory, ReadBuffers.size, &source) {
            case .bytes(let size) where size > ReadBuffers.size:
                // Only Unix sockets carry more. What does not fit is lost: no half of a message is delivered.
                add(.failed(Errno(EMSGSIZE)), of: connection)
            case .bytes(let size):
                buffers.fill(size, from: source)
                add(.data(buffer: index), of: connection)
            case .wouldBlock: return
            case .failed(let error): return add(.failed(error), of: connection)
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
            keep(Datagram(bytes: Array(bytes), destination: destination), for: connection)
        }
        try ProtocolObject.forget(size, of: buffer, connection.protocolObject)
        return finish(outcome)
    }

    /// Sends what has waited; false when there is still no room.
    func sendUnsent(_ connection: Connection) -> Bool {
        while let datagram = connection.unsentDatagrams.first {
            let outcome = datagram.bytes.withUnsafeBytes {
                sendDatagram(connection.fd, $0, to: datagram.destination)
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

    private func keep(_ datagram: Datagram, for connection: Connection) {
        let waiting = connection.unsentDatagrams.reduce(0) { $0 + $1.bytes.count }
        guard waiting + datagram.bytes.count <= Reactor.unsentLimit else {
            return count(inbox.statistics.errors)
        }
        connection.unsentDatagrams.append(datagram)
    }
}
