import CPlatform
import Glibc

/// A set of descriptors to wait for, with a token for each: level-triggered epoll.
///
/// The corresponding C functions are `epoll_ctl`, `epoll_wait` and `epoll_pwait2`.
@safe
public struct Poller: ~Copyable {
    // All fields are trivial, so that `release` can end the value without closing.
    private let poller: Int32
    private let events: UnsafeMutablePointer<epoll_event>
    private let capacity: Int

    /// An empty set that reports at most `capacity` events at a time. Throws `EMFILE` where no number is
    /// left. The corresponding C function is `epoll_create1`.
    public init(capacity: Int) throws(Errno) {
        self.init(owning: try Poller.makeDescriptor(), capacity: capacity)
    }

    /// The descriptor of an empty set. Throws `EMFILE` where no number is left. The corresponding C
    /// function is `epoll_create1`.
    public static func makeDescriptor() throws(Errno) -> Descriptor {
        Descriptor(owning: try retryingOnInterrupt { epoll_create1(Int32(EPOLL_CLOEXEC)) })
    }

    /// A set of which there is only the descriptor yet.
    public init(owning descriptor: consuming Descriptor, capacity: Int) {
        self.poller = descriptor.release()
        self.capacity = capacity
        unsafe self.events = .allocate(capacity: capacity)
    }

    deinit {
        unsafe events.deallocate()
        _ = Glibc.close(poller)
    }

    /// The descriptor of the set itself: readable while any member is ready.
    public var descriptor: Int32 { poller }

    /// Ends the value but leaves its descriptor open, for somebody who must close it later.
    public consuming func release() -> Int32 {
        let number = poller
        unsafe events.deallocate()
        discard self
        return number
    }

    /// Whether a descriptor can be waited for at all. Throws where that cannot be found out.
    public static func accepts(_ fd: Int32) throws(Errno) -> Bool {
        let poller = try Poller(capacity: 1)
        do throws(Errno) { try poller.add(fd, token: Token(bits: 0), interest: .nothing) } catch {
            if error.code == EPERM { return false }
            throw error
        }
        return true
    }

    /// Adds a descriptor.
    ///
    /// - Throws: `EPERM` for a regular file, `EBADF`, `EEXIST`.
    public func add(_ fd: Int32, token: Token, interest: Interest) throws(Errno) {
        let set = poller
        _ = try retryingOnInterrupt {
            cplatform_epoll_ctl(set, EPOLL_CTL_ADD, fd, interest.mask, token.bits)
        }
    }

    /// Changes what is waited for. Throws what the system says. The corresponding C function is `epoll_ctl`.
    public func modify(_ fd: Int32, token: Token, interest: Interest) throws(Errno) {
        let set = poller
        _ = try retryingOnInterrupt {
            cplatform_epoll_ctl(set, EPOLL_CTL_MOD, fd, interest.mask, token.bits)
        }
    }

    /// Takes a descriptor out; to be done before it is closed. The corresponding C function is `epoll_ctl`.
    public func remove(_ fd: Int32) {
        _ = cplatform_epoll_ctl(poller, EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits until a member is ready.
    ///
    /// - Parameter milliseconds: at most so long; 0 does not wait, -1 has no limit.
    /// - Returns: how many events `event(_:)` has; 0 after a time-out or a signal.
    public func wait(milliseconds: Int32) -> Int {
        let count = unsafe epoll_wait(poller, events, Int32(clamping: capacity), milliseconds)
        return max(0, Int(count))
    }

    /// The same for at most so many nanoseconds, as exactly as the kernel has it.
    public func wait(nanoseconds: Int64) -> Int {
        guard nanoseconds > 0, nanoseconds < 1_000_000_000 else {
            let milliseconds = nanoseconds <= 0 ? nanoseconds : (nanoseconds - 1) / 1_000_000 + 1
            return wait(milliseconds: Int32(clamping: milliseconds))
        }
        return max(
            0, Int(unsafe cplatform_epoll_wait(poller, events, Int32(clamping: capacity), nanoseconds)))
    }

    /// An event of the last wait. `index` must be below the count that it returned.
    @inline(__always)
    public func event(_ index: Int) -> Event {
        // Bounds: the callers loop over the count that wait returned, which is at most the capacity.
        unsafe Event(
            token: Token(bits: cplatform_epoll_token(events + index)),
            flags: cplatform_epoll_events(events + index))
    }

    /// Names a member across time: the place of a connection and the generation of that place, so that
    /// an event of a descriptor that was closed meanwhile can never reach the next user of its number.
    public struct Token: Equatable, Sendable {
        /// What the kernel keeps for us.
        public let bits: UInt64

        /// From what the kernel gave back.
        public init(bits: UInt64) { self.bits = bits }

        /// A place in a table and the generation of that place.
        public init(slot: UInt32, generation: UInt32) {
            bits = UInt64(generation) << 32 | UInt64(slot)
        }

        /// The place.
        public var slot: UInt32 { UInt32(truncatingIfNeeded: bits) }
        /// The place's generation.
        public var generation: UInt32 { UInt32(truncatingIfNeeded: bits >> 32) }
    }

    /// What to wait for.
    public enum Interest: Sendable {
        /// Readable.
        case read
        /// Writable.
        case write
        /// Either.
        case readAndWrite
        /// Only a reset or the end of both directions, which the kernel always tells.
        case nothing

        fileprivate var mask: UInt32 {
            switch self {
            case .read: EPOLLIN.rawValue
            case .write: EPOLLOUT.rawValue
            case .readAndWrite: EPOLLIN.rawValue | EPOLLOUT.rawValue
            case .nothing: 0
            }
        }
    }

    /// One thing that happened.
    public struct Event: Sendable {
        /// Who it happened to.
        public let token: Token
        fileprivate let flags: UInt32

        /// A read will not block: data, the end, or an error.
        public var isReadable: Bool {
            flags & (EPOLLIN.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0
        }
        /// A write will not block: room, or an error.
        public var isWritable: Bool {
            flags & (EPOLLOUT.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0
        }
        /// Both directions are over, or an error waits.
        public var isHungUp: Bool { flags & (EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0 }
        /// Both directions are over.
        public var isOver: Bool { flags & EPOLLHUP.rawValue != 0 }
    }
}
