import CPlatform
import Glibc
import Streams

/// What became of a read or a write that does not wait.
enum Transfer {
    /// So many bytes were moved; 0 from a read is the end of the stream.
    case bytes(Int)
    /// Not now; the poller tells when.
    case wouldBlock
    /// Not now, because the kernel is short of memory: of that no poller tells, it says that there is room.
    case noMemory
    /// Never again on this descriptor.
    case failed(Errno)

    @inline(__always)
    fileprivate init(_ result: Int) {
        if result >= 0 {
            self = .bytes(result)
            return
        }
        let error = Errno.last()
        switch error.code {
        // EWOULDBLOCK is the same number.
        case EAGAIN: self = .wouldBlock
        case ENOBUFS, ENOMEM: self = .noMemory
        default: self = .failed(error)
        }
    }
}

/// Reads what is there, from any kind of descriptor, also one that is in blocking mode if it is a socket.
///
/// `isSocket` may be wrong the one way: what is none is found out.
///
/// The corresponding C functions are `recv(MSG_DONTWAIT)` and, for what is no socket, `read`.
@inline(__always)
func readAvailable(
    _ fd: Int32, _ memory: UnsafeMutableRawPointer, _ size: Int, isSocket: Bool = true
) -> Transfer {
    while true {
        var result = isSocket ? recv(fd, memory, size, Int32(MSG_DONTWAIT)) : read(fd, memory, size)
        if result < 0, isSocket, Errno.last().code == ENOTSOCK { result = read(fd, memory, size) }
        if result < 0, Errno.last().code == EINTR { continue }
        return Transfer(result)
    }
}

/// Receives one datagram; more bytes than `size` say that it was longer than that.
///
/// The corresponding C function is `recvfrom(MSG_DONTWAIT | MSG_TRUNC)`.
func receiveDatagram(
    _ fd: Int32, _ memory: UnsafeMutableRawPointer, _ size: Int, _ source: inout SocketAddress
) -> Transfer {
    while true {
        let result = source.fill { recvfrom(fd, memory, size, Int32(MSG_DONTWAIT | MSG_TRUNC), $0, $1) }
        if result < 0, Errno.last().code == EINTR { continue }
        return Transfer(result)
    }
}

/// Sends one datagram: to an address, or to the peer of a connected socket where that is none.
///
/// The corresponding C function is `sendto(MSG_DONTWAIT | MSG_NOSIGNAL)`.
func sendDatagram(_ fd: Int32, _ data: UnsafeRawBufferPointer, to destination: SocketAddress) -> Transfer {
    let flags = Int32(MSG_DONTWAIT | MSG_NOSIGNAL)
    while true {
        let result = destination.with { address, size in
            size == 0
                ? send(fd, data.baseAddress, data.count, flags)
                : sendto(fd, data.baseAddress, data.count, flags, address, size)
        }
        if result < 0, Errno.last().code == EINTR { continue }
        // Nobody has that path: the same as one that nobody reads from.
        if result < 0, Errno.last().code == ENOENT { return .failed(Errno(ECONNREFUSED)) }
        return Transfer(result)
    }
}

/// Writes what there is room for. A dead peer is an error, never a signal.
///
/// The corresponding C functions are `send(MSG_DONTWAIT | MSG_NOSIGNAL)` and, for what is no socket,
/// `write` (a pipe raises SIGPIPE, which both hosts ignore).
@inline(__always)
func writeAvailable(_ fd: Int32, _ data: UnsafeRawBufferPointer, isSocket: Bool = true) -> Transfer {
    if data.isEmpty { return .bytes(0) }
    while true {
        var result =
            isSocket
            ? send(fd, data.baseAddress, data.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
            : write(fd, data.baseAddress, data.count)
        if result < 0, isSocket, Errno.last().code == ENOTSOCK {
            result = write(fd, data.baseAddress, data.count)
        }
        if result < 0, Errno.last().code == EINTR { continue }
        return Transfer(result)
    }
}

/// The same for several pieces.
///
/// The corresponding C functions are `sendmsg(MSG_DONTWAIT | MSG_NOSIGNAL)` and, for what is no socket, `writev`.
func gatherAvailable(
    _ fd: Int32, _ pieces: UnsafeMutableBufferPointer<iovec>, _ count: Int, isSocket: Bool = true
) -> Transfer {
    while true {
        var message = msghdr()
        message.msg_iov = pieces.baseAddress
        message.msg_iovlen = count
        var result = isSocket ? sendmsg(fd, &message, Int32(MSG_DONTWAIT | MSG_NOSIGNAL)) : -1
        if !isSocket || result < 0 && Errno.last().code == ENOTSOCK {
            result = writev(fd, pieces.baseAddress, Int32(clamping: count))
        }
        if result < 0, Errno.last().code == EINTR { continue }
        return Transfer(result)
    }
}
