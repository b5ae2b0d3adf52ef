import CPlatform
import Glibc
import Synchronization

extension Descriptor {
    /// Two connected sockets whose messages keep their boundaries and may carry descriptors. Closed on exec.
    ///
    /// The corresponding C function is `socketpair(SOCK_SEQPACKET)`. Throws `EMFILE` where no number is left.
    public static func messageSockets() throws(Errno) -> DescriptorPair {
        var ends: (Int32, Int32) = (-1, -1)
        // A pair of two Int32 is laid out as the array that C wants.
        _ = try retryingOnInterrupt {
            unsafe withUnsafeMutableBytes(of: &ends) {
                unsafe cplatform_socketpair($0.assumingMemoryBound(to: Int32.self).baseAddress)
            }
        }
        return DescriptorPair(Descriptor(owning: ends.0), Descriptor(owning: ends.1))
    }

    /// The reading and the writing end of a pipe. Closed on exec.
    ///
    /// The corresponding C function is `pipe2`. Throws `EMFILE` where no number is left.
    public static func pipe() throws(Errno) -> DescriptorPair {
        var ends: (Int32, Int32) = (-1, -1)
        _ = try retryingOnInterrupt {
            unsafe withUnsafeMutableBytes(of: &ends) {
                unsafe cplatform_pipe($0.assumingMemoryBound(to: Int32.self).baseAddress)
            }
        }
        return DescriptorPair(Descriptor(owning: ends.0), Descriptor(owning: ends.1))
    }

    /// A new terminal: the end of who looks at it, and that of the program. Closed on exec.
    ///
    /// The corresponding C function is `openpty`. Throws what the system says.
    public static func terminal(_ size: ProcessRequest.Terminal) throws(Errno) -> DescriptorPair {
        var ends: (Int32, Int32) = (-1, -1)
        _ = try retryingOnInterrupt {
            unsafe withUnsafeMutableBytes(of: &ends) {
                let numbers = unsafe $0.assumingMemoryBound(to: Int32.self).baseAddress
                return unsafe cplatform_open_terminal(numbers, size.rows, size.columns)
            }
        }
        return DescriptorPair(Descriptor(owning: ends.0), Descriptor(owning: ends.1))
    }

    /// Sends a message, and with it descriptors, which stay open here. Never waits.
    ///
    /// - Throws: `EAGAIN` where there is no room, `EPIPE` where nobody is left to receive.
    /// The corresponding C function is `sendmsg`.
    public borrowing func send(_ message: [UInt8], with descriptors: [Int32] = []) throws(Errno) {
        try Descriptor.send(message, with: descriptors, on: number)
    }

    /// The same on a socket that somebody else owns. Throws what the system says.
    public static func send(
        _ message: [UInt8], with descriptors: [Int32] = [], on socket: Int32
    ) throws(Errno) {
        // Both arrays live as long as the call.
        _ = try retryingOnInterrupt {
            let count = Int32(clamping: descriptors.count)
            return unsafe cplatform_send(socket, message, message.count, descriptors, count)
        }
    }

    /// Receives a message of at most so many bytes; nil at the end. Never waits.
    ///
    /// - Throws: `EAGAIN` where there is none.
    /// The corresponding C function is `recvmsg`.
    public borrowing func receive(atMost size: Int) throws(Errno) -> Message? {
        try Descriptor.receive(atMost: size, on: number)
    }

    /// The same on a socket that somebody else owns. Throws what the system says.
    public static func receive(atMost size: Int, on socket: Int32) throws(Errno) -> Message? {
        var numbers = [Int32](repeating: -1, count: Int(cplatform_most_descriptors))
        var count: Int32 = 0
        var bytes = [UInt8](repeating: 0, count: size)
        let received = try retryingOnInterrupt {
            unsafe cplatform_receive(socket, &bytes, size, &numbers, &count)
        }
        let descriptors = numbers.prefix(max(0, Int(count))).map { SharedDescriptor($0) }
        if received == 0, descriptors.isEmpty { return nil }
        return Message(bytes: Array(bytes.prefix(received)), descriptors: descriptors)
    }

    /// What a socket has received.
    public struct Message: Sendable {
        /// Its bytes.
        public let bytes: [UInt8]
        /// The descriptors that came with it.
        public let descriptors: [SharedDescriptor]
    }
}

/// Two descriptors that belong together: of a pipe the reading end and the writing end.
public struct DescriptorPair: ~Copyable {
    /// The first.
    public let first: Descriptor
    /// The second.
    public let second: Descriptor

    init(_ first: consuming Descriptor, _ second: consuming Descriptor) {
        self.first = first
        self.second = second
    }

    /// Keeps the first and closes the second.
    public consuming func takeFirst() -> Descriptor { first }

    /// Keeps the second and closes the first.
    public consuming func takeSecond() -> Descriptor { second }
}

/// A descriptor that several may hold: closed with the last reference to it, or before by any of them.
public final class SharedDescriptor: Sendable {
    private let open: Atomic<Int32>

    /// Takes ownership of an open descriptor.
    public init(_ number: Int32) { open = Atomic(number) }

    deinit { close() }

    /// The number; -1 when it is closed.
    public var number: Int32 { open.load(ordering: .sequentiallyConsistent) }

    /// Closes it, for all who hold it.
    public func close() {
        let number = open.exchange(-1, ordering: .sequentiallyConsistent)
        if number >= 0 { _ = Glibc.close(number) }
    }
}
