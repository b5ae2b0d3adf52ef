import ArgumentParser
import Glibc
import Streams
import Synchronization

/// What a byte channel is measured against.
struct Exchange: ParsableArguments {
    @Option(help: "Bytes of one message.") var size = 64
    @Option(help: "How long to measure, in milliseconds.") var milliseconds = 1000

    func validate() throws {
        guard size > 0, milliseconds > 0 else {
            throw ValidationError("size and milliseconds are numbers from 1")
        }
    }
}

/// An OS pipe from one native thread to another, a write and a read for each message. Prints messages a second.
struct Pipe: ParsableCommand {
    @OptionGroup var exchange: Exchange

    func run() throws {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw Errno(errno) }
        let (input, output, size) = (ends[0], ends[1], exchange.size)
        // As large as an unprivileged process may have it.
        _ = fcntl(output, 1031 /* F_SETPIPE_SZ */, 1 << 20)
        let received = Atomic<Int>(0)
        let reader = Thread {
            let buffer = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
            defer { buffer.deallocate() }
            var filled = 0
            while true {
                let count = read(input, buffer + filled, size - filled)
                if count <= 0 { return }
                filled += count
                if filled == size {
                    filled = 0
                    received.add(1, ordering: .relaxed)
                }
            }
        }
        let message = [UInt8](repeating: 120, count: size)
        let start = monotonicNanoseconds()
        let end = start + Int64(exchange.milliseconds) * 1_000_000
        while monotonicNanoseconds() < end {
            for _ in 0..<(size < 4096 ? 100 : 1) {
                var sent = 0
                while sent < size {
                    let count = message.withUnsafeBytes { write(output, $0.baseAddress! + sent, size - sent) }
                    guard count > 0 else { throw Errno(errno) }
                    sent += count
                }
            }
        }
        close(output)
        reader.join()
        print(Double(received.load(ordering: .relaxed)) * 1e9 / Double(monotonicNanoseconds() - start))
    }
}

/// Two native threads that wake each other in turn by a condition variable. Prints turns there and back a second.
struct Condition: ParsableCommand {
    @OptionGroup var exchange: Exchange

    func run() throws {
        let turn = Turn()
        let other = Thread { while turn.pass(from: 1) {} }
        let start = monotonicNanoseconds()
        let end = start + Int64(exchange.milliseconds) * 1_000_000
        var count = 0
        while monotonicNanoseconds() < end {
            _ = turn.pass(from: 0)
            count += 1
        }
        turn.stop()
        other.join()
        print(Double(count) * 1e9 / Double(monotonicNanoseconds() - start))
    }
}

/// Whose turn it is of two.
private final class Turn: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var owner = 0
    private var isOver = false

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    /// Waits until it is this one's turn, and passes it on. False when it is over.
    func pass(from me: Int) -> Bool {
        pthread_mutex_lock(mutex)
        while owner != me, !isOver { pthread_cond_wait(condition, mutex) }
        owner = 1 - me
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
        return !isOver
    }

    func stop() {
        pthread_mutex_lock(mutex)
        isOver = true
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
    }
}

/// A thread that runs a closure.
final class Thread {
    private var thread = pthread_t()

    init(_ body: @escaping @Sendable () -> Void) {
        let box = Unmanaged.passRetained(Box(body))
        pthread_create(
            &thread, nil,
            { context in
                if let context { Unmanaged<Box>.fromOpaque(context).takeRetainedValue().body() }
                return nil
            }, box.toOpaque())
    }

    func join() { pthread_join(thread, nil) }

    private final class Box {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
}
