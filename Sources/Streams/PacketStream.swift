import CPlatform
import Glibc

/// One direction of a connection of packets: a descriptor of any kind, read and written without waiting.
public struct PacketStream: ~Copyable, Sendable {
    /// The descriptor.
    public let descriptor: Descriptor
    /// Whether more may be there than one read has brought, without asking the poller again.
    public let isSocket: Bool
    private let blocks: Bool

    /// What became of a read or write.
    public enum Transfer: Sendable { case bytes(Int), wouldBlock, failed(Errno) }

    /// Takes ownership of a descriptor. Its mode is left alone: others may share it. Throws what the system
    /// says of the descriptor.
    public init(owning descriptor: consuming Descriptor) throws(Errno) {
        let nature = try PacketStream.nature(of: descriptor.number)
        self.init(descriptor, isSocket: nature.isSocket, blocks: nature.blocks)
    }

    private init(_ descriptor: consuming Descriptor, isSocket: Bool, blocks: Bool) {
        self.descriptor = descriptor
        self.isSocket = isSocket
        self.blocks = blocks
    }

    private static func nature(of number: Int32) throws(Errno) -> (isSocket: Bool, blocks: Bool) {
        let isSocket = try Descriptor.kind(of: number) == .socket
        return (isSocket, try retryingOnInterrupt { cplatform_status_flags(number) } & O_NONBLOCK == 0)
    }

    private func result(_ result: Int) -> Transfer? {
        if result >= 0 { return .bytes(result) }
        let error = Errno.last()
        switch error.code {
        case EINTR: return nil
        case EAGAIN, ENOBUFS: return .wouldBlock
        default: return .failed(error)
        }
    }

    /// Reads what is there; 0 bytes are the end. What is no socket must be readable, or not block.
    public func read(_ memory: UnsafeMutableRawPointer, _ size: Int) -> Transfer {
        while true {
            let count =
                isSocket
                ? unsafe recv(descriptor.number, memory, size, Int32(MSG_DONTWAIT))
                : unsafe Glibc.read(descriptor.number, memory, size)
            if let result = result(count) { return result }
        }
    }

    /// The same, and goes on in other memory where the first is full.
    func read(
        _ memory: UnsafeMutableRawPointer, _ size: Int, then other: UnsafeMutableRawPointer, _ otherSize: Int
    ) -> Transfer {
        unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { pieces in
            unsafe pieces[0] = iovec(iov_base: memory, iov_len: size)
            unsafe pieces[1] = iovec(iov_base: other, iov_len: otherSize)
            while true {
                var count = 0
                if isSocket {
                    var message = unsafe msghdr()
                    unsafe message.msg_iov = pieces.baseAddress
                    unsafe message.msg_iovlen = 2
                    count = unsafe recvmsg(descriptor.number, &message, Int32(MSG_DONTWAIT))
                } else {
                    count = unsafe readv(descriptor.number, pieces.baseAddress, 2)
                }
                if let result = result(count) { return result }
            }
        }
    }

    func write(_ pieces: UnsafeMutableBufferPointer<iovec>) -> Transfer {
        if !isSocket, blocks { return unsafe writeALittle(pieces) }
        while true {
            var count = 0
            if isSocket {
                var message = unsafe msghdr()
                unsafe message.msg_iov = pieces.baseAddress
                unsafe message.msg_iovlen = pieces.count
                count = unsafe sendmsg(descriptor.number, &message, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
            } else {
                count = unsafe writev(descriptor.number, pieces.baseAddress, Int32(clamping: pieces.count))
            }
            if let result = result(count) { return result }
        }
    }

    /// To a pipe that would block: so much that it cannot, once there is room at all.
    private func writeALittle(_ pieces: UnsafeMutableBufferPointer<iovec>) -> Transfer {
        while true {
            var state = pollfd(fd: descriptor.number, events: Int16(POLLOUT), revents: 0)
            let ready = unsafe poll(&state, 1, 0)
            if ready == 0 { return .wouldBlock }
            if ready < 0 {
                if let result = result(-1) { return result }
                continue
            }
            guard let first = unsafe pieces.first else { return .bytes(0) }
            let count = unsafe Glibc.write(
                descriptor.number, first.iov_base, min(first.iov_len, Int(PIPE_BUF)))
            if let result = result(count) { return result }
        }
    }
}
