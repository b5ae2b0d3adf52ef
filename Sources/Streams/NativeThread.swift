import CPlatform
import Glibc

/// Native threads with a stack of a chosen size, which nobody joins.
public enum NativeThread {
    private final class Body: Sendable {
        let name: StaticString
        let run: @Sendable () -> Void
        init(_ name: StaticString, _ run: @escaping @Sendable () -> Void) {
            self.name = name
            self.run = run
        }
    }

    /// Runs `body` on a new thread. `name`, of at most 15 characters, is what `top -H` shows.
    ///
    /// - Throws: `EAGAIN` when the system has no more threads.
    /// The corresponding C function is `pthread_create`.
    public static func start(
        name: StaticString, stackSize: Int, _ body: @escaping @Sendable () -> Void
    ) throws(Errno) {
        var attributes = pthread_attr_t()
        unsafe pthread_attr_init(&attributes)
        defer { unsafe pthread_attr_destroy(&attributes) }
        unsafe pthread_attr_setstacksize(&attributes, stackSize)
        unsafe pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        // The new thread takes the reference over.
        let argument = unsafe Unmanaged.passRetained(Body(name, body))
        var thread = pthread_t()
        let result = unsafe pthread_create(
            &thread, &attributes,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let body = unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
                body.name.withUTF8Buffer { name in
                    unsafe name.withMemoryRebound(to: CChar.self) { name in
                        _ = unsafe pthread_setname_np(pthread_self(), name.baseAddress)
                    }
                }
                body.run()
                return nil
            }, argument.toOpaque())
        guard result == 0 else {
            unsafe argument.release()
            throw Errno(result)
        }
    }
}
