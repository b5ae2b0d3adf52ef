import CPlatform
import Glibc
import Synchronization
import Testing

@testable import Streams

/// How long a test waits for something that must happen, before it says that it did not. Only ever
/// reached by a defect: what is waited for is an event, and nothing waits longer than the event takes.
let patience: Int = 30

/// A thread of the operating system that runs a closure once.
final class TestThread: Sendable {
    private final class Body: Sendable {
        let run: @Sendable () -> Void
        let done = Signal()
        /// Where the kernel tells of this thread, below /proc; empty until it runs.
        let place = Mutex<String>("")
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    private let body: Body
    private let thread: pthread_t

    /// Starts the thread.
    init(_ run: @escaping @Sendable () -> Void) {
        let body = Body(run)
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { argument in
                let body = Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue()
                // The threads that run tests have every signal blocked, and we inherit that.
                var signals = sigset_t()
                sigemptyset(&signals)
                sigaddset(&signals, SIGUSR2)
                pthread_sigmask(SIG_UNBLOCK, &signals, nil)
                var place = [CChar](repeating: 0, count: 64)
                let count = max(0, readlink("/proc/thread-self", &place, place.count))
                let name = String(decoding: place[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self)
                body.place.withLock { $0 = "/proc/" + name }
                body.run()
                body.done.post()
                return nil
            }, Unmanaged.passRetained(body).toOpaque())
        precondition(result == 0, "pthread_create: \(result)")
        self.body = body
        self.thread = thread
    }

    /// Waits for the end of the thread. A thread that does not end is left alone and is a failure.
    @discardableResult
    func join(sourceLocation: SourceLocation = #_sourceLocation) -> Bool {
        // What it does is many events long, and each has its own limit.
        if body.done.wait(seconds: 4 * patience, sourceLocation: sourceLocation) {
            pthread_join(thread, nil)
            return true
        }
        pthread_detach(thread)
        return false
    }

    /// Interrupts the system call that the thread is in. See `installInterruption`.
    func interrupt() { pthread_kill(thread, SIGUSR2) }

    /// Whether the thread sleeps in the kernel now.
    var isAsleep: Bool {
        let place = body.place.withLock { $0 }
        if place.isEmpty { return false }
        let file = open(place + "/stat", O_RDONLY | O_CLOEXEC)
        if file < 0 { return false }
        defer { close(file) }
        var text = [UInt8](repeating: 0, count: 256)
        let count = max(0, read(file, &text, text.count))
        // `tid (name) S …`, and the name may hold anything.
        guard let end = text[..<count].lastIndex(of: UInt8(ascii: ")")), end + 2 < count else { return false }
        return text[end + 2] == UInt8(ascii: "S")
    }
}

/// Runs a closure on several threads at once and waits for all of them.
func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
    let threads = (0..<count).map { index in TestThread { body(index) } }
    for thread in threads { thread.join() }
}

/// From now on SIGUSR2 interrupts system calls and does nothing else.
func installInterruption() {
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in }
    sigaction(SIGUSR2, &action, nil)
}

/// A counting semaphore of the operating system: none of the code under test.
final class Signal: @unchecked Sendable {
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    init() { sem_init(semaphore, 0, 0) }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    func post() { sem_post(semaphore) }

    /// Waits until somebody posts. That nobody does is a failure.
    @discardableResult
    func wait(seconds: Int = patience, sourceLocation: SourceLocation = #_sourceLocation) -> Bool {
        var limit = timespec()
        clock_gettime(CLOCK_REALTIME, &limit)
        limit.tv_sec += seconds
        while sem_timedwait(semaphore, &limit) != 0 {
            if errno == EINTR { continue }
            Issue.record("nobody posted for \(seconds) s", sourceLocation: sourceLocation)
            return false
        }
        return true
    }
}

/// Looks until a condition holds, and lets other threads run meanwhile. That it never does is a failure.
@discardableResult
func eventually(
    sourceLocation: SourceLocation = #_sourceLocation, _ condition: () -> Bool
) -> Bool {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    let limit = now.tv_sec + patience
    while !condition() {
        sched_yield()
        clock_gettime(CLOCK_MONOTONIC, &now)
        if now.tv_sec > limit {
            Issue.record("it never became true", sourceLocation: sourceLocation)
            return false
        }
    }
    return true
}

/// How many nanoseconds of a processor this thread has used: the same however busy the machine is.
func cpuTime() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// Random numbers that are the same in every run.
struct Randomness: RandomNumberGenerator {
    private var state: UInt64

    init(seed: Int) { state = UInt64(truncatingIfNeeded: seed) &* 0x9E37_79B9_7F4A_7C15 &+ 1 }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var bits = state
        bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
        bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
        return bits ^ (bits >> 31)
    }
}

/// Something that tells when it is freed.
final class Tracked: Sendable {
    private let living: Living
    /// How many there are.
    final class Living: Sendable {
        let number = Atomic<Int>(0)
        var count: Int { number.load(ordering: .sequentiallyConsistent) }
    }

    init(_ living: Living) {
        self.living = living
        living.number.add(1, ordering: .sequentiallyConsistent)
    }

    deinit { living.number.subtract(1, ordering: .sequentiallyConsistent) }
}

/// Puts an element into a table that has room.
func insert<Element>(
    _ element: Element, into table: inout SlotTable<Element>,
    sourceLocation: SourceLocation = #_sourceLocation
) throws -> Poller.Token {
    let token = table.insert(element)
    return try #require(token, sourceLocation: sourceLocation)
}

// MARK: Descriptors

/// Two connected descriptors, held without the code under test. Each is closed once, at the latest when
/// the `with` function that made them ends.
final class Ends {
    /// The end that is read from; of sockets either.
    private(set) var reader: Int32
    /// The end that is written to; of sockets either.
    private(set) var writer: Int32

    fileprivate init(reader: Int32, writer: Int32) {
        self.reader = reader
        self.writer = writer
    }

    func closeReader() {
        if reader >= 0 { close(reader) }
        reader = -1
    }

    func closeWriter() {
        if writer >= 0 { close(writer) }
        writer = -1
    }

    /// Writes bytes to the writer.
    func send(_ count: Int = 1) { _ = write(writer, [UInt8](repeating: 7, count: count), count) }

    /// Reads at most so many bytes from the reader; -1 where there is nothing.
    @discardableResult
    func receive(_ count: Int = 1) -> Int {
        var bytes = [UInt8](repeating: 0, count: count)
        return read(reader, &bytes, count)
    }
}

private func with<Result>(_ ends: Ends, _ body: (Ends) throws -> Result) rethrows -> Result {
    defer {
        ends.closeReader()
        ends.closeWriter()
    }
    return try body(ends)
}

/// Runs a closure with a pipe.
func withPipe<Result>(_ body: (Ends) throws -> Result) throws -> Result {
    var numbers: [Int32] = [-1, -1]
    try #require(pipe(&numbers) == 0)
    return try with(Ends(reader: numbers[0], writer: numbers[1]), body)
}

/// Runs a closure with two connected sockets of the local machine that do not block.
func withSockets<Result>(_ body: (Ends) throws -> Result) throws -> Result {
    var numbers: [Int32] = [-1, -1]
    let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue)
    try #require(socketpair(AF_UNIX, type, 0, &numbers) == 0)
    return try with(Ends(reader: numbers[0], writer: numbers[1]), body)
}

/// Runs a closure with the two ends of a TCP connection.
func withTCP<Result>(_ body: (Ends) throws -> Result) throws -> Result {
    let type = Int32(SOCK_STREAM.rawValue)
    let listener = socket(AF_INET, type, 0)
    defer { close(listener) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let (isBound, client) = withUnsafeMutableBytes(of: &address) { bytes in
        let address = bytes.assumingMemoryBound(to: sockaddr.self).baseAddress!
        guard bind(listener, address, size) == 0, getsockname(listener, address, &size) == 0,
            listen(listener, 1) == 0
        else { return (false, Int32(-1)) }
        let client = socket(AF_INET, type, 0)
        return (connect(client, address, size) == 0, client)
    }
    try #require(isBound)
    let server = accept(listener, nil, nil)
    try #require(server >= 0)
    return try with(Ends(reader: server, writer: client), body)
}

/// Moves a descriptor to a number that nobody else in this process gets: tests run side by side, and the
/// kernel hands out the lowest free number, so that only such a number can be seen to be closed.
func moveToOwnNumber(_ descriptor: Int32) throws -> Int32 {
    let number = OwnNumbers.next.add(1, ordering: .relaxed).newValue
    try #require(dup2(descriptor, number) == number)
    close(descriptor)
    return number
}

private enum OwnNumbers {
    static let next = Atomic<Int32>(500)
}

/// An open descriptor with a number that nobody else gets.
func ownEventfd() throws -> Int32 { try moveToOwnNumber(cplatform_eventfd()) }

/// Whether a number is open in this process.
func isOpen(_ number: Int32) -> Bool { fcntl(number, F_GETFD) != -1 }

/// Whether a descriptor ends when the process executes another program.
func closesOnExec(_ number: Int32) -> Bool {
    let flags = fcntl(number, F_GETFD)
    return flags != -1 && flags & FD_CLOEXEC != 0
}

// MARK: Messages

extension Payload {
    /// A message that holds a number, in as many bytes as wanted and at least 8.
    init(number: Int, count: Int = 8) {
        let bytes =
            withUnsafeBytes(of: number) { Array($0) } + [UInt8](repeating: 0, count: max(0, count - 8))
        self = bytes.withUnsafeBytes { Payload(copying: $0) }
    }

    /// A message of so many zeros.
    init(count: Int) {
        self = [UInt8](repeating: 0, count: count).withUnsafeBytes { Payload(copying: $0) }
    }

    /// The number that it holds.
    var number: Int {
        withExtendedLifetime(keeper) { count < 8 ? -1 : bytes.loadUnaligned(as: Int.self) }
    }
}
