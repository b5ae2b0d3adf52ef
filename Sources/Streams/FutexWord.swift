import CPlatform
import Synchronization

/// A 32-bit word that one thread can sleep on until another changes it.
///
/// All accesses are sequentially consistent: the users of this word reason about two words at once.
/// The corresponding C function is `futex`.
@safe
public final class FutexWord: @unchecked Sendable {
    // The kernel needs an address that never moves: memory of its own, freed with the object.
    private let word: UnsafeMutablePointer<Atomic<UInt32>>

    /// A word with a first value.
    public init(_ value: UInt32) {
        unsafe word = .allocate(capacity: 1)
        unsafe word.initialize(to: Atomic(value))
    }

    deinit {
        unsafe word.deinitialize(count: 1)
        unsafe word.deallocate()
    }

    /// Reads the word.
    public var value: UInt32 { unsafe word.pointee.load(ordering: .sequentiallyConsistent) }

    /// Writes the word.
    public func store(_ value: UInt32) {
        unsafe word.pointee.store(value, ordering: .sequentiallyConsistent)
    }

    /// Writes the word and returns what was there.
    public func exchange(_ value: UInt32) -> UInt32 {
        unsafe word.pointee.exchange(value, ordering: .sequentiallyConsistent)
    }

    /// Writes the word if it has the expected value; whether it had.
    public func compareExchange(expected: UInt32, desired: UInt32) -> Bool {
        unsafe word.pointee.compareExchange(
            expected: expected, desired: desired, ordering: .sequentiallyConsistent
        ).exchanged
    }

    /// Sets bits of the word; returns what was there.
    @discardableResult
    public func set(bits: UInt32) -> UInt32 {
        unsafe word.pointee.bitwiseOr(bits, ordering: .sequentiallyConsistent).oldValue
    }

    /// Adds to the word; it wraps around.
    public func add(_ value: UInt32) {
        _ = unsafe word.pointee.wrappingAdd(value, ordering: .sequentiallyConsistent)
    }

    /// Sleeps while the word has this value, at most `nanoseconds` where given. May return early.
    public func wait(while value: UInt32, nanoseconds: Int64? = nil) {
        // An Atomic<UInt32> is laid out as its value: the kernel reads the same four bytes.
        unsafe word.withMemoryRebound(to: UInt32.self, capacity: 1) { address in
            if let nanoseconds {
                _ = unsafe cplatform_futex_wait_for(address, value, nanoseconds)
            } else {
                _ = unsafe cplatform_futex_wait(address, value)
            }
        }
    }

    /// Wakes threads that sleep on the word.
    public func wake(_ count: Int32 = 1) {
        unsafe word.withMemoryRebound(to: UInt32.self, capacity: 1) { address in
            _ = unsafe cplatform_futex_wake(address, count)
        }
    }
}
