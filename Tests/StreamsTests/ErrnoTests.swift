import Glibc
import Synchronization
import Testing

@testable import Streams

@Suite("Errno")
struct ErrnoTests {
    /// A system call that does what was written down for it.
    private struct Script {
        /// What the next calls return; -1 with what `errno` then says.
        enum Step {
            case returns(Int)
            case fails(Int32)
        }

        var steps: [Step]

        mutating func call() -> Int {
            guard !steps.isEmpty else {
                Issue.record("it was called again")
                return 0
            }
            switch steps.removeFirst() {
            case .returns(let result): return result
            case .fails(let code):
                errno = code
                return -1
            }
        }
    }

    @Test(
        "a call that works is made once, and gives what it returned", arguments: [0, 1, 4711, -2, .max, .min])
    func success(result: Int) throws {
        var script = Script(steps: [.returns(result)])
        errno = EINTR
        #expect(try retryingOnInterrupt { script.call() } == result)
        #expect(script.steps.isEmpty)
    }

    @Test("an interrupted call is made again until it works", arguments: [1, 2, 100])
    func interrupts(count: Int) throws {
        var script = Script(steps: Array(repeating: .fails(EINTR), count: count) + [.returns(5)])
        #expect(try retryingOnInterrupt { script.call() } == 5)
        #expect(script.steps.isEmpty)
    }

    @Test(
        "a failure is thrown, and the call is not made again", arguments: [EAGAIN, EBADF, EPERM, EIO, 4095])
    func failure(code: Int32) {
        var script = Script(steps: [.fails(code)])
        #expect(throws: Errno(code)) { try retryingOnInterrupt { script.call() } }
        #expect(script.steps.isEmpty)
    }

    @Test("a failure after interrupts is thrown, never the interrupt")
    func failureAfterInterrupts() {
        var script = Script(steps: [.fails(EINTR), .fails(EINTR), .fails(EPIPE)])
        #expect(throws: Errno(EPIPE)) { try retryingOnInterrupt { script.call() } }
        #expect(script.steps.isEmpty)
    }

    @Test("works with results of any width")
    func widths() throws {
        #expect(try retryingOnInterrupt { Int32(7) } == 7)
        #expect(try retryingOnInterrupt { Int64(7) } == 7)
        #expect(try retryingOnInterrupt { Int8.min } == .min)
        #expect(throws: Errno(EBADF)) { try retryingOnInterrupt { fcntl(-1, F_GETFD) } }
    }

    @Test("a read that real signals interrupt gives its bytes in the end")
    func realSignals() throws {
        installInterruption()
        try withPipe { ends in
            let reader = ends.reader
            let interrupts = Atomic<Int>(0)
            let result = Mutex<Result<Int, Errno>?>(nil)
            let thread = TestThread {
                let got = Result { () throws(Errno) in
                    try retryingOnInterrupt {
                        var byte: UInt8 = 0
                        let count = read(reader, &byte, 1)
                        if count == -1, errno == EINTR {
                            interrupts.add(1, ordering: .relaxed)
                            errno = EINTR
                        }
                        return count
                    }
                }
                result.withLock { $0 = got }
            }
            eventually {
                thread.interrupt()
                return interrupts.load(ordering: .relaxed) >= 5
            }
            ends.send()
            thread.join()
            #expect(result.withLock { $0 } == .success(1))
        }
    }

    @Test("last() is what the failed call of this thread left")
    func last() {
        #expect(fcntl(-1, F_GETFD) == -1)
        #expect(Errno.last() == Errno(EBADF))
        onThreads(2) { index in
            for _ in 0..<1000 {
                let code = index == 0 ? EBADF : EINVAL
                let failed = index == 0 ? fcntl(-1, F_GETFD) : fcntl(0, -1)
                let last = Errno.last()
                if failed != -1 || last.code != code { Issue.record("\(last), not \(Errno(code))") }
            }
        }
    }

    @Test(
        "is called what Erlang calls it",
        arguments: [
            (EACCES, "eacces"), (EAGAIN, "eagain"), (EWOULDBLOCK, "eagain"), (EBADF, "ebadf"),
            (ECONNABORTED, "econnaborted"), (ECONNRESET, "econnreset"), (EEXIST, "eexist"),
            (EINVAL, "einval"), (EMFILE, "emfile"), (ENFILE, "enfile"), (ENOBUFS, "enobufs"),
            (ENOENT, "enoent"), (ENOMEM, "enomem"), (ENOSPC, "enospc"), (ENOTCONN, "enotconn"),
            (EPERM, "eperm"), (EPIPE, "epipe"), (ETIMEDOUT, "etimedout"),
        ] as [(Int32, String)])
    func names(code: Int32, name: String) {
        #expect(Errno(code).name.map { "\($0)" } == name)
    }

    @Test("has no name for what it does not know", arguments: [0, -1, 4095, Int32.max, Int32.min])
    func noName(code: Int32) {
        #expect(Errno(code).name == nil)
    }

    @Test("says what the number means, whatever the number", arguments: [EBADF, 0, -1, 4095, .max, .min])
    func description(code: Int32) {
        #expect(!Errno(code).description.isEmpty)
        #expect(Errno(EBADF).description == "Bad file descriptor")
    }

    @Test("is equal where the number is")
    func equality() {
        #expect(Errno(EPERM) == Errno(EPERM))
        #expect(Errno(EPERM) != Errno(EBADF))
        #expect(Errno(EPERM).code == EPERM)
    }
}
