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

    /// How much stack the handler of a signal has where a thread has used up its own: `faulthandler` and what the
    /// processor saves, up to 12 KB with the widest registers.
    private static let signalStackSize = 64 << 10

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
                NativeThread.withSignalStack(body.run)
                return nil
            }, argument.toOpaque())
        guard result == 0 else {
            unsafe argument.release()
            throw Errno(result)
        }
    }

    /// Runs `body` while handlers of signals that ask for it (`SA_ONSTACK`) have a stack of their own on this thread.
    /// Without one the kernel ends the process without a word when the thread's own stack overflows.
    ///
    /// The corresponding C function is `sigaltstack`.
    private static func withSignalStack(_ body: () -> Void) {
        unsafe withUnsafeTemporaryAllocation(byteCount: signalStackSize, alignment: 16) { memory in
            var stack = unsafe stack_t(ss_sp: memory.baseAddress, ss_flags: 0, ss_size: memory.count)
            // Where it fails, all works as before but for that.
            _ = unsafe sigaltstack(&stack, nil)
            body()
            // The memory is about to be freed.
            unsafe stack.ss_flags = Int32(SS_DISABLE)
            _ = unsafe sigaltstack(&stack, nil)
        }
    }
}
