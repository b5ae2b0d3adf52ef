import CPlatform
import Glibc
import Synchronization

/// How any thread tells an event loop which of the things it waits for are over: by an eventfd that the loop
/// watches, and a list of keys.
public final class KeyBell: Sendable {
    private let rung = Mutex<[Int]>([])
    /// What the loop watches. It is readable while there are keys.
    public let descriptor: Descriptor

    /// A bell that nobody has rung. Throws `EMFILE` where no number is left. The corresponding C function
    /// is `eventfd`.
    public init() throws(Errno) {
        descriptor = Descriptor(owning: try retryingOnInterrupt { cplatform_eventfd() })
    }

    /// Adds a key. From any thread.
    public func ring(_ key: Int) {
        let isFirst = rung.withLock { rung in
            rung.append(key)
            return rung.count == 1
        }
        guard isFirst else { return }
        var one: UInt64 = 1
        _ = unsafe Glibc.write(descriptor.number, &one, 8)
    }

    /// The keys since the last time. On the loop's thread, when the descriptor is readable.
    public func drain() -> [Int] {
        // First: a key that is added after the look rings again.
        var count: UInt64 = 0
        _ = unsafe Glibc.read(descriptor.number, &count, 8)
        return rung.withLock { rung in
            defer { rung = [] }
            return rung
        }
    }
}
