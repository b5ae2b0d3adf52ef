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

/// Answers to one receiver that has no room, oldest first.
struct WaitingAnswers {
    let peer: SocketAddress
    /// What they take.
    private(set) var size = 0
    private var datagrams: [[UInt8]] = []
    private var sent = 0
    /// What a datagram takes besides its bytes.
    private static let overhead = 64

    init(to peer: SocketAddress) { self.peer = peer }

    /// The oldest.
    var first: [UInt8]? { sent < datagrams.count ? datagrams[sent] : nil }

    mutating func append(_ bytes: [UInt8]) {
        size += bytes.count + WaitingAnswers.overhead
        datagrams.append(bytes)
    }

    mutating func removeFirst() {
        guard let first else { return }
        size -= first.count + WaitingAnswers.overhead
        sent += 1
        // Now and then, so that each removal costs the same on average.
        if sent * 2 > datagrams.count {
            datagrams.removeFirst(sent)
            sent = 0
        }
    }
}

/// Sockets of datagrams: each is one call of `data_received`, and what that puts into `write_buffer` is one
/// datagram to whom it came from.
extension Reactor {
    /// How many datagrams one event reads.
    private static let datagramsPerEvent = 16
    /// How many bytes of answers wait for one socket that has no room.
    private static let unsentLimit = 1 << 20

    /// How many of them may be for one receiver.
    private static let waitingLimit = 1 << 18
    /// How long a receiver that has no room is given to make some, in nanoseconds, and at most where it makes none.
    static let shortestPause: Int64 = 5_000_000
    private static let longestPause: Int64 = 80_000_000

    /// Reads what is there, but leaves a buffer for each of so many others that are ready as well: a socket that
    /// always has datagrams would take all of them in every turn. Without the GIL.
    func readDatagrams(_ connection: Connection, isOver: Bool, others: Int) {
        for number in 0..<max(1, min(Reactor.datagramsPerEvent, buffers.left - others)) {
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
            case .noMemory: return readLater(connection)
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

    /// Sends `write_buffer` as one datagram; false when the socket has to wait for room. An answer to a Unix socket
    /// that is full waits by itself: those to others go on.
    func flushDatagram(_ connection: Connection) throws(PythonError) -> Bool {
        guard let buffer = try ProtocolObject.checkedWriteBuffer(connection.protocolObject) else {
            return true
        }
        let size = PyByteArray_Size(buffer)
        if size == 0 { return true }
        let bytes = UnsafeRawBufferPointer(start: PyByteArray_AsString(buffer), count: size)
        let destination = ProtocolObject.peer(connection.protocolObject)
        let isBehindOthers = connection.waitingAnswers.contains { $0.peer == destination }
        let outcome = isBehindOthers ? .wouldBlock : sendDatagram(connection.fd, bytes, to: destination)
        var isDone = finish(outcome, of: connection)
        if !isDone, destination.isUnixPath {
            wait(Array(bytes), for: destination, connection)
            isDone = true
        } else if !isDone {
            keep(Datagram(bytes: Array(bytes), peer: destination), for: connection)
        }
        try ProtocolObject.forget(size, of: buffer, connection.protocolObject)
        return isDone
    }

    /// Keeps an answer until its receiver has room. One that has none for long loses what is too much.
    private func wait(_ bytes: [UInt8], for peer: SocketAddress, _ connection: Connection) {
        let known = connection.waitingAnswers.firstIndex { $0.peer == peer }
        let own = known.map { connection.waitingAnswers[$0].size } ?? 0
        let all = connection.waitingAnswers.reduce(0) { $0 + $1.size }
        guard own + bytes.count <= Reactor.waitingLimit, all + bytes.count <= Reactor.unsentLimit else {
            return count(inbox.statistics.errors)
        }
        if known == nil { connection.waitingAnswers.append(WaitingAnswers(to: peer)) }
        connection.waitingAnswers[known ?? connection.waitingAnswers.endIndex - 1].append(bytes)
        noteStalled(connection)
    }

    /// Sends what has waited for receivers without room; whether there was any that could be sent.
    private func sendWaiting(_ connection: Connection) -> Bool {
        var isAnySent = false
        for index in connection.waitingAnswers.indices {
            let peer = connection.waitingAnswers[index].peer
            while let bytes = connection.waitingAnswers[index].first,
                finish(bytes.withUnsafeBytes { sendDatagram(connection.fd, $0, to: peer) }, of: connection)
            {
                connection.waitingAnswers[index].removeFirst()
                isAnySent = true
            }
        }
        connection.waitingAnswers.removeAll { $0.first == nil }
        return isAnySent
    }

    /// Sends what has waited; false when there is still no room.
    func sendUnsent(_ connection: Connection) -> Bool {
        while let datagram = connection.unsentDatagrams.first {
            let outcome = datagram.bytes.withUnsafeBytes {
                sendDatagram(connection.fd, $0, to: datagram.peer)
            }
            guard finish(outcome, of: connection) else { return false }
            connection.unsentDatagrams.removeFirst()
        }
        return true
    }

    /// Counts; false for what has to be sent again. A datagram that the kernel refuses is lost, as one on the way
    /// may be: its socket goes on.
    private func finish(_ outcome: Transfer, of connection: Connection) -> Bool {
        ProtocolObject.note(outcome, of: connection.protocolObject)
        switch outcome {
        case .bytes(let size): count(inbox.statistics.bytesOut, size)
        case .wouldBlock, .noMemory: return false
        case .failed: count(inbox.statistics.errors)
        }
        return true
    }

    /// Whether a connection that is to write waits for what the poller does not tell of, and rather says all the time
    /// that a write would not block: for memory of the kernel's or, a datagram socket whose protocol writes by itself,
    /// for a Unix socket that is full. Notes it then, to try again after a while.
    func isStalled(_ connection: Connection) -> Bool {
        if ProtocolObject.isShortOfMemory(connection.protocolObject) {
            noteStalled(connection)
            return true
        }
        guard connection.kind == .datagrams else { return false }
        let destination =
            connection.unsentDatagrams.first?.peer ?? ProtocolObject.peer(connection.protocolObject)
        guard destination.isUnixPath || !connection.waitingAnswers.isEmpty else { return false }
        noteStalled(connection)
        return true
    }

    /// The kernel lacks memory for a read, and the poller would say all the time that there is something. Without the
    /// GIL.
    func readLater(_ connection: Connection) {
        leavePoller(connection)
        noteStalled(connection)
    }

    private func noteStalled(_ connection: Connection) {
        if !stalled.contains(where: { $0 === connection }) { stalled.append(connection) }
        if retryAt == 0 { retryAt = monotonicNanoseconds() + retryPause }
    }

    /// The receivers may have room by now, and the kernel memory. With the GIL.
    func retry() {
        let connections = stalled
        stalled = []
        retryAt = 0
        var isAnySent = false
        for connection in connections where connection.isOpen {
            if connection.mode == .reading, connection.isOutOfPoller, !connection.isInCallback {
                enterPoller(connection)
            }
            if sendWaiting(connection) { isAnySent = true }
            if !connection.waitingAnswers.isEmpty { stalled.append(connection) }
            guard connection.mode == .writing || connection.mode == .draining else { continue }
            // Whether a protocol that writes by itself had anything sent is not known here.
            if connection.mode == .writing { isAnySent = true }
            asCallback {
                write(connection)
                deliverHeldDatagrams(connection)
            }
        }
        retryPause = isAnySent ? Reactor.shortestPause : min(retryPause * 2, Reactor.longestPause)
        if !stalled.isEmpty { retryAt = monotonicNanoseconds() + retryPause }
    }

    /// Gives an answer up whose receiver is gone.
    func forgetAnswer(_ connection: Connection) {
        count(inbox.statistics.errors)
        if connection.isToBeClosed { return close(connection) }
        do throws(PythonError) {
            let size = try ProtocolObject.unwritten(connection.protocolObject)
            if size > 0, let buffer = try ProtocolObject.checkedWriteBuffer(connection.protocolObject) {
                try ProtocolObject.forget(size, of: buffer, connection.protocolObject)
            }
        } catch { PyErr_Clear() }
        setMode(.reading, of: connection)
    }

    private func keep(_ datagram: Datagram, for connection: Connection) {
        let waiting = connection.unsentDatagrams.reduce(0) { $0 + $1.bytes.count }
        guard waiting + datagram.bytes.count <= Reactor.unsentLimit else {
            return count(inbox.statistics.errors)
        }
        connection.unsentDatagrams.append(datagram)
    }
}
