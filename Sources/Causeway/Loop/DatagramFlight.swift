import CPlatform
import Glibc
import Streams

/// A datagram that was read into a loop's memory.
struct ReceivedDatagram {
    let offset, count: Int
    let source: SocketAddress
}

/// A datagram that is to be sent: without an address, to the peer of a connected socket.
struct OutgoingDatagram {
    let chunk: Chunk
    let destination: SocketAddress
}

/// The datagrams that one transport sends at the end of a turn, without the GIL.
struct DatagramFlight {
    /// How many go with one system call.
    private static let together = 32

    let transport: DatagramTransport
    let fd: Int32
    let datagrams: [OutgoingDatagram]
    /// How many of them are sent, or will never be.
    private(set) var sent = 0
    /// There is no room for the next.
    private(set) var isBlocked = false
    private(set) var errors: [Errno] = []
    /// Something is to be done as soon as they are sent.
    let isAwaited: Bool

    init(_ transport: DatagramTransport, _ datagrams: [OutgoingDatagram], isAwaited: Bool) {
        self.transport = transport
        self.fd = transport.fd
        self.datagrams = datagrams
        self.isAwaited = isAwaited
    }

    /// Nothing has to be done before the loop waits.
    var isDone: Bool { !isAwaited && errors.isEmpty && sent == datagrams.count }

    /// Sends what there is room for. What cannot be sent is lost, as it may be on its way, but for what has to wait.
    mutating func fly() {
        while sent < datagrams.count, !isBlocked {
            let result = datagrams.count - sent == 1 ? sendOne() : sendSeveral()
            if result > 0 {
                sent += result
                continue
            }
            let error = Errno.last()
            switch error.code {
            case EINTR: continue
            case EAGAIN: isBlocked = true
            default:
                errors.append(error)
                sent += 1
            }
        }
    }

    private func sendOne() -> Int {
        let datagram = datagrams[sent]
        let flags = Int32(MSG_DONTWAIT | MSG_NOSIGNAL)
        let result = datagram.destination.with { address, size in
            sendto(fd, datagram.chunk.start, datagram.chunk.count, flags, size == 0 ? nil : address, size)
        }
        return result < 0 ? result : 1
    }

    private func sendSeveral() -> Int {
        let count = min(datagrams.count - sent, DatagramFlight.together)
        return withUnsafeTemporaryAllocation(of: cplatform_datagram.self, capacity: count) { pieces in
            for index in 0..<count {
                let datagram = datagrams[sent + index]
                var piece = cplatform_datagram()
                piece.bytes = UnsafeMutableRawPointer(mutating: datagram.chunk.start)
                piece.count = datagram.chunk.count
                datagram.destination.with { address, size in
                    withUnsafeMutableBytes(of: &piece.address) {
                        $0.copyMemory(from: UnsafeRawBufferPointer(start: address, count: Int(size)))
                    }
                    piece.address_size = size
                }
                pieces.initializeElement(at: index, to: piece)
            }
            return Int(cplatform_send_datagrams(fd, pieces.baseAddress, Int32(clamping: count)))
        }
    }
}

extension LoopCore {
    /// How many datagrams one event reads.
    private static let datagramsPerEvent = 16
    /// No datagram of the Internet is longer.
    private static let longest = 64 << 10

    /// Reads datagrams of a transport. Without the GIL.
    func readDatagrams(of transport: DatagramTransport) {
        var left = LoopCore.datagramsPerEvent
        while left > 0, let (memory, _, size) = arena.next() {
            // Those of Unix sockets may be as long as the peer's buffer.
            let room = transport.isUnix ? ReadArena.most : LoopCore.longest
            let wanted = min(size / room, left)
            // Without room the event comes again with the next poll: it is level-triggered.
            guard wanted > 0 else { return }
            let count = read(transport, memory, room, wanted)
            if count < wanted { return }
            left -= count
        }
    }

    /// How many there were.
    private func read(
        _ transport: DatagramTransport, _ memory: UnsafeMutableRawPointer, _ room: Int, _ wanted: Int
    ) -> Int {
        withUnsafeTemporaryAllocation(of: cplatform_datagram.self, capacity: wanted) { pieces in
            pieces.initialize(repeating: cplatform_datagram())
            let count = Int(
                cplatform_receive_datagrams(
                    transport.fd, memory, room, pieces.baseAddress, Int32(clamping: wanted)))
            if count < 0 {
                let error = Errno.last()
                switch error.code {
                case EAGAIN, EINTR, ENOBUFS, ENOMEM: break
                default: deliveries.append(.datagramFailed(transport, error))
                }
                return 0
            }
            for index in 0..<count { take(pieces[index], of: transport) }
            return count
        }
    }

    /// Notes what was read, and moves it to where the one before ends.
    private func take(_ piece: cplatform_datagram, of transport: DatagramTransport) {
        guard let (memory, offset, _) = arena.next(), let bytes = piece.bytes else { return }
        if memory != bytes { memmove(memory, bytes, piece.count) }
        arena.take(piece.count)
        var source = SocketAddress()
        source.fill { address, size in
            size.pointee = min(piece.address_size, size.pointee)
            withUnsafeBytes(of: piece.address) { bytes in
                let target = UnsafeMutableRawBufferPointer(start: address, count: bytes.count)
                target.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes.prefix(Int(size.pointee))))
            }
        }
        deliveries.append(.datagram(transport, datagrams.count))
        datagrams.append(ReceivedDatagram(offset: offset, count: piece.count, source: source))
    }
}
