import CPlatform
import Glibc

/// A file descriptor that has exactly one owner and is closed exactly once: when its owner ends.
public struct Descriptor: ~Copyable, Sendable {
    /// The number. It stays this value's: never close it, and do not keep it longer than the value.
    public let number: Int32

    /// Takes ownership of an open descriptor.
    public init(owning number: Int32) { self.number = number }

    // After EINTR Linux has closed the descriptor all the same: a second close could hit a stranger.
    deinit { _ = Glibc.close(number) }

    /// Gives the number up without closing it.
    public consuming func release() -> Int32 {
        let number = self.number
        discard self
        return number
    }

    /// Lets go of the open file at once, and keeps the number, by which others may still mean to use it: until this
    /// value ends it refers to the same file as `other`.
    ///
    /// The corresponding C function is `dup3`. Where that fails, the file is closed with this value.
    public borrowing func refer(toFileOf other: borrowing Descriptor) {
        _ = try? retryingOnInterrupt { cplatform_replace(number, other.number) }
    }

    /// Makes reads and writes return at once.
    ///
    /// The corresponding C function is `fcntl(F_SETFL)`. Throws what the system says.
    public borrowing func makeNonBlocking() throws(Errno) {
        let number = self.number
        let flags = try retryingOnInterrupt { cplatform_status_flags(number) }
        if flags & O_NONBLOCK != 0 { return }
        _ = try retryingOnInterrupt { cplatform_set_status_flags(number, flags | O_NONBLOCK) }
    }

    /// What kind of thing a descriptor number refers to, asked without owning it.
    ///
    /// - Throws: `EBADF` for a number that is not open.
    /// The corresponding C function is `fstat`.
    public static func kind(of number: Int32) throws(Errno) -> Kind {
        var status = stat()
        _ = try retryingOnInterrupt { unsafe fstat(number, &status) }
        switch status.st_mode & S_IFMT {
        case S_IFSOCK:
            if try option(number, SO_ACCEPTCONN) != 0 { return .listener }
            return try option(number, SO_TYPE) == cplatform_datagram_type ? .datagramSocket : .socket
        case S_IFREG, S_IFDIR, S_IFBLK: return .file
        default:
            // Some devices, /dev/null among them, cannot be waited for either.
            return try Poller.accepts(number) ? .stream : .file
        }
    }

    private static func option(_ number: Int32, _ name: Int32) throws(Errno) -> Int32 {
        var value: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        _ = try retryingOnInterrupt { unsafe getsockopt(number, SOL_SOCKET, name, &value, &size) }
        return value
    }

    /// A second number for the same open file, closed on exec.
    ///
    /// The corresponding C function is `fcntl(F_DUPFD_CLOEXEC)`. Throws `EBADF` for what is not open,
    /// `EMFILE` where no number is left.
    public static func duplicate(_ number: Int32) throws(Errno) -> Descriptor {
        Descriptor(owning: try retryingOnInterrupt { cplatform_duplicate(number) })
    }

    /// Kinds of descriptor that are read and written in different ways.
    public enum Kind: Sendable {
        /// A connected socket of any family whose data is a stream, or packets in order.
        case socket
        /// A socket of datagrams: UDP, or such a Unix socket.
        case datagramSocket
        /// A socket that accepts connections.
        case listener
        /// A pipe, terminal, eventfd or anything else that can be waited for.
        case stream
        /// A regular file, a directory, or a device that no poller can wait for.
        case file
    }
}
