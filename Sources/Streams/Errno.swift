import CPlatform
import Glibc

/// An error number of the operating system, as a value that can be thrown and matched on.
///
/// The corresponding C variable is `errno`.
public struct Errno: Error, Equatable, Sendable, CustomStringConvertible {
    /// The number, as `<errno.h>` of this machine has it.
    public let code: Int32

    /// Wraps a number.
    public init(_ code: Int32) { self.code = code }

    /// The number that the last failed system call of this thread left.
    ///
    /// Not inlined: no reference counting may come between the call and the look at `errno`.
    @inline(never)
    public static func last() -> Errno { Errno(cplatform_errno()) }

    /// The POSIX name in the spelling that Erlang uses (`ebadf`), nil for one that Erlang's users never
    /// match on.
    public var name: StaticString? {
        switch code {
        case E2BIG: "e2big"
        case EACCES: "eacces"
        case EAGAIN: "eagain"
        case EBADF: "ebadf"
        case EBUSY: "ebusy"
        case ECONNABORTED: "econnaborted"
        case ECONNRESET: "econnreset"
        case EEXIST: "eexist"
        case EINVAL: "einval"
        case EIO: "eio"
        case EISDIR: "eisdir"
        case ELOOP: "eloop"
        case EMFILE: "emfile"
        case ENAMETOOLONG: "enametoolong"
        case ENFILE: "enfile"
        case ENOBUFS: "enobufs"
        case ENODEV: "enodev"
        case ENOENT: "enoent"
        case ENOEXEC: "enoexec"
        case ENOMEM: "enomem"
        case ENOSPC: "enospc"
        case ENOSYS: "enosys"
        case ENOTCONN: "enotconn"
        case ENOTDIR: "enotdir"
        case ENXIO: "enxio"
        case EPERM: "eperm"
        case EPIPE: "epipe"
        case EROFS: "erofs"
        case ESRCH: "esrch"
        case ETIMEDOUT: "etimedout"
        case ETXTBSY: "etxtbsy"
        default: nil
        }
    }

    /// What `strerror` says, in English.
    public var description: String {
        // The pointer is libc's own static text, valid until this thread's next strerror.
        guard let text = unsafe strerror(code) else { return "errno \(code)" }
        return unsafe String(cString: text)
    }
}

/// Runs a system call until it is not interrupted by a signal.
///
/// - Returns: what the call returned, which is not -1.
/// - Throws: `Errno` of the call, never `EINTR`.
@inlinable
public func retryingOnInterrupt<Result: FixedWidthInteger & SignedInteger>(
    _ call: () -> Result
) throws(Errno) -> Result {
    while true {
        let result = call()
        if result != -1 { return result }
        let error = Errno.last()
        if error.code != EINTR { throw error }
    }
}
