import Glibc
import Synchronization
import Testing

@testable import Streams

@Suite("Doorbell")
struct DoorbellTests {
    private static let bellToken = Poller.Token(bits: .max)

    /// What is in the eventfd, which is emptied; 0 where there is nothing.
    private func rings(_ bell: Doorbell) throws -> UInt64 {
        var count: UInt64 = 0
        return read(try bell.descriptor(), &count, 8) == 8 ? count : 0
    }

    // MARK: One thread

    @Test("a ring while the thread runs writes nothing")
    func ringWhileRunning() throws {
        let bell = Doorbell()
        #expect(try rings(bell) == 0)
        bell.ring()
        #expect(try rings(bell) == 0)
        bell.willPoll()
        bell.didWake()
        bell.ring()
        #expect(try rings(bell) == 0)
    }

    @Test("of the rings while the thread polls the first writes, and the others need not")
    func ringWhilePolling() throws {
        let bell = Doorbell()
        _ = try bell.descriptor()
        for _ in 0..<3 {
            bell.willPoll()
            for _ in 0..<5 { bell.ring() }
            #expect(try rings(bell) == 1)
            bell.didWake()
        }
    }

    @Test("a ring after the announcement and before the wait ends the wait at once")
    func ringBeforeWait() throws {
        let bell = Doorbell()
        let poller = try Poller(capacity: 4)
        try poller.add(try bell.descriptor(), token: DoorbellTests.bellToken, interest: .read)
        bell.willPoll()
        bell.ring()
        let count = poller.wait(milliseconds: -1)
        #expect(count == 1)
        let token = poller.event(0).token
        #expect(token == DoorbellTests.bellToken)
        bell.didWake()
        bell.silence()
        let after = poller.wait(milliseconds: 0)
        #expect(after == 0)

        bell.willPark()
        bell.ring()
        bell.park()
        bell.willPark()
        bell.ring()
        bell.park(nanoseconds: .max)
        #expect(try rings(bell) == 0)
    }

    @Test("park does not sleep where nothing was announced")
    func parkUnannounced() {
        let bell = Doorbell()
        bell.park()
        bell.willPoll()
        bell.park()
        bell.willPark()
        bell.didWake()
        bell.park()
    }

    @Test("park ends at its limit, and the thread counts as running again", arguments: [-1, 0, 1, 2_000_000])
    func parkLimit(nanoseconds: Int64) throws {
        let bell = Doorbell()
        let start = monotonicNanoseconds()
        bell.willPark()
        bell.park(nanoseconds: nanoseconds)
        #expect(monotonicNanoseconds() - start >= nanoseconds)
        // Not announced again, so that it returns at once.
        let again = monotonicNanoseconds()
        bell.park(nanoseconds: Int64(patience) * 1_000_000_000)
        #expect(monotonicNanoseconds() - again < Int64(patience) * 1_000_000_000)
        bell.ring()
        #expect(try rings(bell) == 0)
    }

    @Test("silence empties the eventfd, and is harmless where it is empty or not made")
    func silence() throws {
        let bell = Doorbell()
        bell.silence()
        _ = try bell.descriptor()
        bell.silence()
        for _ in 0..<10 {
            bell.willPoll()
            bell.ring()
        }
        bell.silence()
        #expect(try rings(bell) == 0)
    }

    @Test("a ring of a thread that polls without an eventfd does no harm")
    func ringWithoutDescriptor() {
        let bell = Doorbell()
        bell.willPoll()
        bell.ring()
    }

    @Test("the eventfd is made once, does not block and is closed on exec")
    func descriptor() throws {
        let bell = Doorbell()
        let number = try bell.descriptor()
        #expect(number >= 0)
        #expect(try bell.descriptor() == number)
        #expect(closesOnExec(number))
        #expect(fcntl(number, F_GETFL) & O_NONBLOCK != 0)
        withExtendedLifetime(bell) {}
    }

    @Test("the eventfd is closed with the bell")
    func end() throws {
        // What is closed leaves a poller: so it shows without the number, which another test may have then.
        let poller = try Poller(capacity: 4)
        var bell: Doorbell? = Doorbell()
        let number = try #require(try bell?.descriptor())
        try poller.add(number, token: DoorbellTests.bellToken, interest: .read)
        bell?.willPoll()
        bell?.ring()
        let ringing = poller.wait(milliseconds: 0)
        #expect(ringing == 1)
        bell = nil
        let closed = poller.wait(milliseconds: 0)
        #expect(closed == 0)
    }

    @Test("signals do not end a park, a ring does")
    func parkThroughSignals() {
        installInterruption()
        let bell = Doorbell()
        let isAwake = Atomic<Bool>(false)
        let thread = TestThread {
            bell.willPark()
            bell.park()
            isAwake.store(true, ordering: .sequentiallyConsistent)
        }
        for _ in 0..<50 {
            guard eventually({ thread.isAsleep }) else { break }
            thread.interrupt()
        }
        eventually { thread.isAsleep }
        let wasAwake = isAwake.load(ordering: .sequentiallyConsistent)
        #expect(!wasAwake)
        bell.ring()
        thread.join()
    }

    // MARK: A thread that waits as a context's does

    /// How a worker waits.
    enum Manner: CaseIterable, CustomTestStringConvertible {
        case parks, spinsAndParks, polls, pollsBriefly, pollsNotAtAll

        /// How long a poll lasts before the worker parks; nothing where it only parks.
        var linger: Int32? {
            switch self {
            case .parks, .spinsAndParks: nil
            case .polls: -1
            case .pollsBriefly: 1
            case .pollsNotAtAll: 0
            }
        }

        var testDescription: String { "\(self)" }
    }

    /// A mailbox and the thread that empties it: the loop of `ContextThread`, without its Python.
    private final class Worker: Sendable {
        let mailbox = Mailbox<Int>(limit: .max)
        let bell = Doorbell()
        let isEnding = Atomic<Bool>(false)
        /// How often it slept on the futex.
        let parks = Atomic<Int>(0)
        /// How often the eventfd woke it.
        let rings = Atomic<Int>(0)
        private let manner: Manner
        private let handle: @Sendable (Int) -> Void

        init(_ manner: Manner, handle: @escaping @Sendable (Int) -> Void) {
            self.manner = manner
            self.handle = handle
        }

        /// From any thread.
        func submit(_ number: Int) {
            if mailbox.push(number) == .queued { bell.ring() }
        }

        /// From any thread: nothing is handled any more.
        func end() {
            isEnding.store(true, ordering: .sequentiallyConsistent)
            bell.ring()
        }

        /// The thread.
        func run() throws {
            let poller = try Poller(capacity: 8)
            try poller.add(try bell.descriptor(), token: bellToken, interest: .read)
            var spin = Spin()
            while !isEnding.load(ordering: .sequentiallyConsistent) {
                let events = waitForWork(poller, &spin)
                for index in 0..<events where poller.event(index).token == bellToken {
                    rings.add(1, ordering: .relaxed)
                    bell.silence()
                }
                var left = 64
                while left > 0, let number = mailbox.popFirst() {
                    handle(number)
                    left -= 1
                }
            }
        }

        private var hasWork: Bool {
            !mailbox.isEmpty || isEnding.load(ordering: .sequentiallyConsistent)
        }

        private func waitForWork(_ poller: borrowing Poller, _ spin: inout Spin) -> Int {
            guard let linger = manner.linger else {
                if manner == .spinsAndParks, spin.wait(until: { hasWork }) { return 0 }
                park()
                spin.woken()
                return 0
            }
            if hasWork { return poller.wait(milliseconds: 0) }
            bell.willPoll()
            if hasWork {
                bell.didWake()
                return poller.wait(milliseconds: 0)
            }
            let events = poller.wait(milliseconds: linger)
            bell.didWake()
            if events == 0, !hasWork { park() }
            return events
        }

        private func park() {
            bell.willPark()
            if hasWork { return bell.didWake() }
            parks.add(1, ordering: .relaxed)
            bell.park()
        }
    }

    /// Runs a closure while a worker's thread runs.
    private func withThread(of worker: Worker, _ body: () -> Void) {
        let thread = TestThread {
            do { try worker.run() } catch { Issue.record("\(error)") }
        }
        body()
        worker.end()
        thread.join()
    }

    /// Does nothing for up to this many rounds, so that a ring comes at every moment of a wait.
    private func dawdle(_ rounds: Int, _ random: inout Randomness) {
        for _ in 0..<Int.random(in: 0...rounds, using: &random) { _ = monotonicNanoseconds() }
    }

    @Test("wakes the thread for every single element", arguments: Manner.allCases)
    func oneByOne(manner: Manner) {
        // Each waits for its answer before the next: one lost wake-up and nobody ever rings again.
        let handled = Signal()
        let worker = Worker(manner) { _ in handled.post() }
        withThread(of: worker) {
            var random = Randomness(seed: 1)
            for number in 0..<5000 {
                worker.submit(number)
                guard handled.wait() else { return }
                if number % 3 == 0 { dawdle(200, &random) }
            }
        }
        // Where the thread slept at all it did so in the way that is looked at here.
        switch manner {
        case .parks: #expect(worker.parks.load(ordering: .relaxed) > 0)
        case .polls:
            #expect(worker.parks.load(ordering: .relaxed) == 0)
            #expect(worker.rings.load(ordering: .relaxed) > 0)
        default: break
        }
    }

    @Test("loses no wake-up of many producers", arguments: Manner.allCases)
    func manyProducers(manner: Manner) {
        let producers = 3
        let each = 3000
        let answers = (0..<producers).map { _ in Signal() }
        let sums = (0..<producers).map { _ in Tally() }
        let worker = Worker(manner) { number in
            let producer = number / each
            sums[producer].add(number % each)
            answers[producer].post()
        }
        withThread(of: worker) {
            onThreads(producers) { producer in
                var random = Randomness(seed: producer)
                var number = 0
                // Bursts of any length, then an answer to each: the last ring of a burst must not be lost.
                while number < each {
                    let burst = min(Int.random(in: 1...4, using: &random), each - number)
                    for _ in 0..<burst {
                        worker.submit(producer * each + number)
                        number += 1
                    }
                    for _ in 0..<burst {
                        guard answers[producer].wait() else { return }
                    }
                    dawdle(50, &random)
                }
            }
        }
        #expect(sums.allSatisfy { $0.sum == each * (each - 1) / 2 })
    }

    /// A sum of one thread that another looks at afterwards.
    private final class Tally: Sendable {
        private let value = Atomic<Int>(0)
        var sum: Int { value.load(ordering: .sequentiallyConsistent) }
        func add(_ number: Int) { value.add(number, ordering: .relaxed) }
    }

    @Test("wakes for the end whatever the thread is doing", arguments: Manner.allCases)
    func ending(manner: Manner) {
        var random = Randomness(seed: 3)
        for _ in 0..<100 {
            let worker = Worker(manner) { _ in }
            withThread(of: worker) { dawdle(300, &random) }
        }
    }

    @Test("a thread that sleeps while somebody else watches its poller misses neither bytes nor rings")
    func watchedPoller() throws {
        try withSockets { ends in
            let context = WatchedContext(socket: ends.reader)
            let writer = ends.writer
            let thread = TestThread {
                do { try context.run() } catch { Issue.record("\(error)") }
            }
            let owner = TestThread { context.runOwner() }
            // One rings, the other writes; each waits for its answer.
            onThreads(2) { index in
                var random = Randomness(seed: index)
                for number in 0..<3000 {
                    if index == 0 {
                        if context.mailbox.push(number) == .queued { context.bell.ring() }
                        guard context.rung.wait() else { return }
                    } else {
                        _ = write(writer, "x", 1)
                        guard context.written.wait() else { return }
                    }
                    dawdle(100, &random)
                }
            }
            context.end()
            ends.closeWriter()
            thread.join()
            context.asked.post()
            owner.join()
        }
    }

    /// A context that never polls for long: it asks its owner to watch its poller, and parks. The owner
    /// stands for the Erlang process, and its `poll` for `enif_select`.
    private final class WatchedContext: Sendable {
        let mailbox = Mailbox<Int>(limit: .max)
        let bell = Doorbell()
        let asked = Signal()
        let rung = Signal()
        let written = Signal()
        private let isEnding = Atomic<Bool>(false)
        private let isWatched = Atomic<Bool>(false)
        private let poller = Atomic<Int32>(-1)
        private let socket: Int32

        init(socket: Int32) { self.socket = socket }

        func end() {
            isEnding.store(true, ordering: .sequentiallyConsistent)
            bell.ring()
        }

        func runOwner() {
            while true {
                asked.wait()
                if isEnding.load(ordering: .sequentiallyConsistent) { return }
                isWatched.store(true, ordering: .sequentiallyConsistent)
                var entry = pollfd(fd: poller.load(ordering: .relaxed), events: Int16(POLLIN), revents: 0)
                // At the end of the test the writer closes, which is an event like others.
                _ = poll(&entry, 1, -1)
                isWatched.store(false, ordering: .sequentiallyConsistent)
                bell.ring()
            }
        }

        func run() throws {
            let poller = try Poller(capacity: 8)
            try poller.add(try bell.descriptor(), token: bellToken, interest: .read)
            try poller.add(socket, token: Poller.Token(bits: 1), interest: .read)
            self.poller.store(poller.descriptor, ordering: .relaxed)
            while !isEnding.load(ordering: .sequentiallyConsistent) {
                for index in 0..<waitForWork(poller) {
                    if poller.event(index).token == bellToken {
                        bell.silence()
                        continue
                    }
                    var byte: UInt8 = 0
                    if read(socket, &byte, 1) == 1 { written.post() }
                }
                while mailbox.popFirst() != nil { rung.post() }
            }
            // The owner still watches it until the end.
            self.poller.store(poller.release(), ordering: .relaxed)
        }

        deinit { close(poller.load(ordering: .relaxed)) }

        private var hasWork: Bool {
            !mailbox.isEmpty || isEnding.load(ordering: .sequentiallyConsistent)
        }

        private func waitForWork(_ poller: borrowing Poller) -> Int {
            if hasWork { return poller.wait(milliseconds: 0) }
            bell.willPoll()
            if hasWork {
                bell.didWake()
                return poller.wait(milliseconds: 0)
            }
            let events = poller.wait(milliseconds: 0)
            bell.didWake()
            if events > 0 || hasWork { return events }
            bell.willPark()
            if hasWork {
                bell.didWake()
                return 0
            }
            if !isWatched.load(ordering: .sequentiallyConsistent) { asked.post() }
            bell.park()
            return 0
        }
    }
}
