import CPlatform
import Glibc

/// How far down the stack of a thread may be used by what recurses.
///
/// Threads that others have made may have any size: those of Python take `ulimit -s`, or what
/// `threading.stack_size` says.
public struct ThreadStack: Sendable {
    /// What stays free below for what does not recurse, in bytes: the deepest that is called from there, and the
    /// handler of a signal. Of a small stack it is a part.
    private static let reserve = 48 << 10

    @usableFromInline let limit: UInt

    /// That of the calling thread.
    public static var current: ThreadStack { ThreadStack() }

    private init() {
        if let known = unsafe pthread_getspecific(ThreadStack.key) {
            limit = UInt(bitPattern: known)
        } else {
            limit = ThreadStack.measure()
            // It fails where there is no memory; then it is measured again.
            unsafe pthread_setspecific(ThreadStack.key, UnsafeRawPointer(bitPattern: limit))
        }
    }

    /// Whether the calling thread, which it must be the stack of, may recurse once more.
    @inlinable public var hasRoom: Bool { cplatform_stack_position() > limit }

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        unsafe pthread_key_create(&key, nil)
        return key
    }()

    /// The address below which the calling thread shall not recurse. Where it cannot be had there is no bound.
    ///
    /// The corresponding C function is `pthread_getattr_np`.
    private static func measure() -> UInt {
        var attributes = pthread_attr_t()
        guard unsafe pthread_getattr_np(pthread_self(), &attributes) == 0 else { return 1 }
        defer { unsafe pthread_attr_destroy(&attributes) }
        var start: UnsafeMutableRawPointer?
        var size = 0
        var guardSize = 0
        guard unsafe pthread_attr_getstack(&attributes, &start, &size) == 0,
            unsafe pthread_attr_getguardsize(&attributes, &guardSize) == 0, let start = unsafe start
        else { return 1 }
        // Up to glibc 2.40 and by some kernels the guard is counted as a part of the stack.
        return UInt(bitPattern: start) &+ UInt(truncatingIfNeeded: guardSize)
            &+ UInt(truncatingIfNeeded: min(reserve, size / 4))
    }
}
