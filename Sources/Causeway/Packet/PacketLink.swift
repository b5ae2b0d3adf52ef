import CPlatform
import CPython
import Glibc
import Python
import Streams
import Synchronization

/// One connection of packets, for Python.
///
/// Its descriptors are read by one thread at a time, which has the *reader's place*: a thread of Python that waits for
/// a response, or one of the link's own crew, which run the handlers. Who leaves the place to do something else does
/// not wake another for it: one of the crew, the *stand-by*, looks every half a millisecond whether it stays empty, and
/// takes it then. So a thread that makes one request after another, and one that answers them, wake nobody.
final class PacketLink: @unchecked Sendable {
    struct Options: Sendable {
        var maximum = PacketHead.standardMaximum
        /// How many handlers run at once.
        var workers = 4
        /// How many requests of ours may be unanswered, and how many bytes may wait to be written.
        var maxOutstanding = Int.max
        var sendWindow = 4 << 20
        /// How many requests of the peer, and how many of their bytes, may wait here.
        var maxRequests = 1024
        var receiveWindow = 64 << 20
        /// For how long a packet waits for others, in nanoseconds; 0 is not at all.
        var grace: Int64 = 0
        /// After how many nanoseconds without any packet the peer is asked for one; 0 is never.
        var keepalive: Int64 = 0
        /// Whether hooks are told how many packets went each way.
        var ticks = false
    }

    /// A channel that nobody opens: whoever is asked there says at least that it is unknown.
    static let probeChannel: UInt64 = 0x7FFF_FFFF
    /// What a request of the peer takes beside its payload, in bytes.
    private static let requestSize = 512
    /// How many bytes of responses may wait to be written where the window for sending does not count, as with
    /// streaming calls: a peer that does not read them asks for nothing more.
    private static let mostResponses = 4 << 20

    /// What Python code is to be told, by a thread of the crew.
    enum Hook: @unchecked Sendable {
        case ended
        case report(String)
        /// A reference that the hook owns.
        case call(PyPointer)
        case ticks
    }

    struct Contents {
        // Ours.
        var pending: [UInt64: PacketRequest] = [:]
        var nextTag: UInt64 = 1
        var deadlines = DeadlineHeap()
        // Theirs.
        var handlers: [UInt64: PacketHandler?] = [:]
        var work = WorkQueue()
        var inFlight: Set<InboundKey> = []
        var deferred: [Int: InboundKey] = [:]
        var deferredSizes: [Int: Int] = [:]
        var nextToken = 1
        var inboundBytes = 0
        var running = 0
        var hooks: [Hook] = []
        // The ends.
        var end: PacketEnd?
        var sendFailure: String?
        var refusal: String?
        var ownRequestsEnded = false
        var theirRequestsEnded = false
        var isEndSent = false
        var isClosed = false
        // The reader's place.
        var isPlaceTaken = false
        var placeChanges = 0
        var isPolling = false
        var pollsForRoom = false
        var pollLimit = Int64.max
        var isPaused = false
        var isRung = false
        var sleepers: [Sleeper] = []
        var flushDue = Int64.max
        var lastWrite: Int64 = 0
        // The crew.
        var crew: Set<UInt> = []
        var leaving = 0
        var starting = 0
        var asleep = 0
        var standby = Standby.none
        /// The last of the crew has gone.
        var isOver = false
        // Who waits for anything else to change.
        var watchers: [Watcher] = []
        var nextWatcher = 0
        var counters = Counters()
        var isProbing = false
        /// The streaming calls that go over it, by the numbers that come; nil where `erlang.rpc` does not use it.
        var flows: [UInt32: RpcFlow]?
        /// How many of them the other side has opened.
        var flowsOfPeer = 0

        var completed = 0
        var ticksSent = 0, ticksReceived = 0
    }

    enum Standby { case none, looking, parked }

    /// Who is told when something is so, which is looked at with the lock.
    struct Watcher: Sendable {
        let number: Int
        let isSo: @Sendable (inout Contents) -> Bool
        let wake: @Sendable () -> Void
    }

    struct Sleeper: Sendable {
        /// The request or waiter whose outcome it waits for.
        let goal: AnyObject & Sendable
        let wake: @Sendable () -> Void
    }

    struct Counters: Sendable {
        var packetsSent = 0, packetsReceived = 0, bytesSent = 0, bytesReceived = 0
        var requestsSent = 0, requestsReceived = 0, unknownResponses = 0, lateResponses = 0, rejected = 0
    }

    let options: Options
    let source: PacketStream
    let target: PacketStream
    private let bell: Descriptor
    let interpreter: OpaquePointer
    let garbage = PacketGarbage()
    let lock = Mutex(Contents())
    let output = PacketOutput()
    let input: PacketInput
    /// `hook(kind, value)`: see `PacketCrew`. Given back when the crew has gone.
    private(set) var hook: PyPointer?
    /// The stand-by sleeps on one, the others of the crew on the other.
    let standbyWord = FutexWord(0)
    let crewWord = FutexWord(0)
    /// Whether the reader's place is empty, for who has no lock.
    let isVacant = Atomic<Bool>(true)
    let lastReceived = Atomic<Int64>(0)
    /// Whether a thread of Python was woken that reads where nobody else does.
    let hasWokenReader = Atomic<Bool>(false)
    /// The payload that is being read to its place, and whose it is. The reader's.
    var filling: (head: PacketHead, bytes: PacketBytes)?

    /// With the GIL.
    init(
        source: consuming PacketStream, target: consuming PacketStream, options: Options, hook: PyPointer,
        interpreter: OpaquePointer
    ) throws(Errno) {
        self.source = source
        self.target = target
        self.options = options
        self.interpreter = interpreter
        bell = Descriptor(owning: try retryingOnInterrupt { cplatform_eventfd() })
        input = PacketInput(maximum: options.maximum)
        lastReceived.store(monotonicNanoseconds(), ordering: .relaxed)
        Py_IncRef(hook)
        self.hook = hook
    }

    // MARK: The reader's place

    /// Takes the place if it is empty.
    func takePlace() -> Bool { lock.withLock { takePlace(&$0) } }

    func takePlace(_ c: inout Contents) -> Bool {
        if c.isPlaceTaken || c.isClosed { return false }
        c.isPlaceTaken = true
        c.placeChanges &+= 1
        isVacant.store(false, ordering: .sequentiallyConsistent)
        return true
    }

    /// Leaves the place; the next one is found by `ensureStandby`.
    func leavePlace(_ c: inout Contents) {
        c.isPlaceTaken = false
        c.placeChanges &+= 1
        isVacant.store(true, ordering: .sequentiallyConsistent)
    }

    /// For a thread that had waited for a response.
    func leavePlaceToOthers() {
        let (next, hand) = lock.withLock { c in
            leavePlace(&c)
            return (c.sleepers.last, ensureStandby(&c))
        }
        if let next { next.wake() }
        follow(hand)
    }

    /// What is to be done after the lock.
    struct Hand {
        var wakesStandby = false, wakesOther = false, starts = false
    }

    /// Sees to it that an empty place, or handlers that take long, are noticed.
    func ensureStandby(_ c: inout Contents) -> Hand {
        if c.isClosed { return Hand() }
        switch c.standby {
        case .looking: return Hand()
        case .parked:
            c.standby = .looking
            return Hand(wakesStandby: true)
        case .none: return needHand(&c)
        }
    }

    /// Sees to it that a thread of the crew comes by.
    func needHand(_ c: inout Contents) -> Hand {
        if c.asleep > 0 { return Hand(wakesOther: true) }
        if c.standby != .none {
            c.standby = .looking
            return Hand(wakesStandby: true)
        }
        if c.isOver || c.crew.count + c.starting >= options.workers + 2 { return Hand() }
        c.starting += 1
        return Hand(starts: true)
    }

    func follow(_ hand: Hand) {
        if hand.wakesStandby {
            standbyWord.add(1)
            standbyWord.wake()
        }
        if hand.wakesOther {
            crewWord.add(1)
            crewWord.wake()
        }
        if hand.starts { startCrew() }
    }

    /// Has the reader look at what has changed, if it waits. After the lock.
    func ring() {
        var one: UInt64 = 1
        _ = Glibc.write(bell.number, &one, 8)
    }

    private func silence() {
        var count: UInt64 = 0
        _ = Glibc.read(bell.number, &count, 8)
    }

    /// One turn of who has the place: writes, waits, reads. Without the GIL.
    ///
    /// `isOver` tells whether what a thread that does so waits for is there.
    ///
    /// - Returns: whether a thread that sleeps has got its response, and whether a signal came.
    func turn(_ gil: GILAccess, until limit: Int64, isOver: (() -> Bool)? = nil) -> (
        gaveAway: Bool, isSignalled: Bool
    ) {
        garbage.collect { collectingTurn(gil, until: limit, isOver) }
    }

    private func collectingTurn(_ gil: GILAccess, until limit: Int64, _ isOver: (() -> Bool)?) -> (
        gaveAway: Bool, isSignalled: Bool
    ) {
        flush(isDue: false)
        let now = monotonicNanoseconds()
        var reads = false
        var writes = false
        let wait: Int64? = lock.withLock { c in
            if isOver?() == true || c.isClosed { return nil }
            reads = c.end == nil && hasRoomForTheirs(c) && hasRoomForResponses(c)
            c.isPaused = c.end == nil && !reads
            writes = output.size > 0 && c.sendFailure == nil && c.flushDue <= now
            var end = min(limit, c.deadlines.first)
            if c.flushDue > now { end = min(end, c.flushDue) }
            if options.keepalive > 0, c.end == nil {
                end = min(
                    end, lastReceived.load(ordering: .relaxed) + options.keepalive * (c.isProbing ? 2 : 1))
            }
            // Work or hooks that came meanwhile are for the crew, which looks at them before it waits.
            c.isPolling = true
            c.pollsForRoom = writes
            c.pollLimit = end
            if c.sendFailure != nil, c.end == nil { return 0 }
            // Appended since the look above, when nobody saw this thread wait.
            if c.isRung, c.sendFailure == nil, c.flushDue == .max || c.flushDue <= now { return 0 }
            return end == .max ? -1 : max(0, end - now)
        }
        guard let wait else { return (false, false) }
        let ready = poll(reads: reads, writes: writes, nanoseconds: wait)
        lock.withLock { $0.isPolling = false }
        if ready.isSignalled { return (false, true) }
        if ready.rang { silence() }
        if ready.writable || ready.rang || wait == 0 { flush(isDue: false) }
        var gaveAway = false
        if ready.readable { gaveAway = receive(gil, isCrew: isOver == nil) }
        lookAtTheClock()
        if lock.withLock({ $0.end == nil && $0.sendFailure != nil }), !ready.readable {
            let text = lock.withLock { $0.sendFailure ?? "" }
            finish(.broken(text))
        }
        return (gaveAway, false)
    }

    /// Whether requests of the peer may come in. As long as we wait for responses, their number is no reason to stop:
    /// handlers may be among those who wait. With the lock.
    private func hasRoomForTheirs(_ c: borrowing Contents) -> Bool {
        // Not even empty ones are for nothing. Numbers of things in memory.
        let bytes = c.inboundBytes &+ PacketLink.requestSize &* c.inFlight.count
        return bytes < options.receiveWindow
            && (c.inFlight.count < options.maxRequests || !c.pending.isEmpty)
    }

    /// Whether what the peer asks can be answered without that more waits than may. With the lock.
    private func hasRoomForResponses(_ c: borrowing Contents) -> Bool {
        if c.flows != nil { return output.responses < PacketLink.mostResponses }
        return output.size / 2 < options.sendWindow
    }

    private struct Ready {
        var readable = false, writable = false, rang = false, isSignalled = false
    }

    private func poll(reads: Bool, writes: Bool, nanoseconds: Int64) -> Ready {
        withUnsafeTemporaryAllocation(of: pollfd.self, capacity: 3) { fds in
            fds[0] = pollfd(fd: bell.number, events: Int16(POLLIN), revents: 0)
            fds[1] = pollfd(fd: reads ? source.descriptor.number : -1, events: Int16(POLLIN), revents: 0)
            fds[2] = pollfd(fd: writes ? target.descriptor.number : -1, events: Int16(POLLOUT), revents: 0)
            var limit = timespec(
                tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
            let count =
                nanoseconds < 0
                ? cplatform_ppoll(fds.baseAddress, 3, nil) : cplatform_ppoll(fds.baseAddress, 3, &limit)
            if count < 0 { return Ready(isSignalled: Errno.last().code == EINTR) }
            return Ready(
                readable: fds[1].revents != 0, writable: fds[2].revents != 0, rang: fds[0].revents != 0)
        }
    }

    /// Those for whom what they wait for is so. With the lock; they are to be woken after it.
    func takeWatchers(_ c: inout Contents) -> [@Sendable () -> Void] {
        var wakers: [@Sendable () -> Void] = []
        if c.watchers.isEmpty { return wakers }
        var others: [Watcher] = []
        for watcher in c.watchers {
            if watcher.isSo(&c) { wakers.append(watcher.wake) } else { others.append(watcher) }
        }
        if !wakers.isEmpty { c.watchers = others }
        return wakers
    }

    // MARK: The clock

    private func lookAtTheClock() {
        let now = monotonicNanoseconds()
        let (isDue, probes) = lock.withLock { c in
            let quiet = now - lastReceived.load(ordering: .relaxed)
            return (
                c.deadlines.first <= now
                    || (options.keepalive > 0 && quiet >= options.keepalive && c.end == nil),
                options.keepalive > 0 && quiet >= options.keepalive && c.end == nil
            )
        }
        guard isDue else { return }
        var wakers: [@Sendable () -> Void] = []
        var isLost = false
        lock.withLock { c in
            while let tag = c.deadlines.popFirst(before: now) {
                if let request = c.pending[tag], request.deadline <= now {
                    c.pending[tag] = nil
                    wakers += request.settle(.timedOut)
                }
            }
            wakers += takeWatchers(&c)
            guard probes else { return }
            if c.isProbing {
                isLost = now - lastReceived.load(ordering: .relaxed) >= 2 * options.keepalive
            } else {
                c.isProbing = true
                let tag = c.nextTag
                c.nextTag &+= 1
                // Whatever comes says that somebody is there: its response is one that came late.
                append(
                    &c,
                    PacketHead(
                        isRequest: true, channel: PacketLink.probeChannel, tag: tag, flags: 0, requestType: 1),
                    nil)
            }
        }
        for wake in wakers { wake() }
        if isLost {
            let seconds = Double(options.keepalive) / 1e9
            finish(.broken("nothing was received for twice the \(seconds) s of keepalive"), tellsPeer: true)
        } else if probes {
            flush(isDue: true)
        }
    }

    // MARK: Ending

    /// No more packets come: everybody who waits is told. The first reason stays.
    ///
    /// A peer that may still listen is told by our last packet: nothing that it has asked is answered any more.
    func finish(_ end: PacketEnd, tellsPeer: Bool = false) {
        var wakers: [@Sendable () -> Void] = []
        var mustRing = false
        var hand = Hand()
        lock.withLock { c in
            guard c.end == nil else { return }
            c.end = end
            let pending = c.pending
            c.pending = [:]
            c.deadlines = DeadlineHeap()
            for request in pending.values { wakers += request.settle(.ended(end)) }
            if case .finished = end {} else { dropWork(&c) }
            if case .broken(let text) = end {
                if tellsPeer {
                    append(&c, .endOfStream, nil)
                    c.isEndSent = true
                } else {
                    dropOutput(&c, text)
                }
            }
            if case .closed = end { dropOutput(&c, end.text) }
            wakers += takeWatchers(&c)
            for sleeper in c.sleepers { wakers.append(sleeper.wake) }
            c.hooks.append(.ended)
            mustRing = c.isPolling
            hand = needHand(&c)
        }
        for wake in wakers { wake() }
        if tellsPeer { flush(isDue: true) }
        if mustRing { ring() }
        follow(hand)
    }

    /// Nobody is there to be answered.
    private func dropWork(_ c: inout Contents) {
        for request in c.work.removeAll() { forget(&c, request.key, request.payload.count) }
    }

    private func dropOutput(_ c: inout Contents, _ text: String) {
        if c.sendFailure == nil { c.sendFailure = text }
        output.drop()
    }

    /// A request of the peer is over.
    func forget(_ c: inout Contents, _ key: InboundKey, _ size: Int) {
        c.inFlight.remove(key)
        c.inboundBytes -= size
        if c.inFlight.isEmpty, c.inFlight.capacity > 4096 { c.inFlight = [] }
    }

    /// Ends all at once: the crew goes.
    func shut(_ end: PacketEnd) {
        finish(end)
        var flows: [UInt32: RpcFlow]?
        let wakers = lock.withLock { c in
            c.isClosed = true
            // What they hold is let go of after the lock.
            swap(&flows, &c.flows)
            dropWork(&c)
            return takeWatchers(&c)
        }
        for wake in wakers { wake() }
        ring()
        for word in [standbyWord, crewWord] {
            word.add(1)
            word.wake(.max)
        }
    }

    /// The last of the crew has gone: the peer can see the end, however long Python keeps the connection. The numbers
    /// stay ours, as a thread of Python may be about to look at them; there it finds the bell.
    func letGoOfStreams() {
        source.descriptor.refer(toFileOf: bell)
        target.descriptor.refer(toFileOf: bell)
    }

    /// The last of the crew has gone. With the GIL.
    func dropReferences() {
        lock.withLock { $0.handlers = [:] }
        Py_DecRef(hook)
        hook = nil
        garbage.giveBack()
    }
}

/// How a thread that has the reader's place, and not the GIL, gets that for a moment.
enum GILAccess {
    case crew(ThreadState)
    /// What `PyEval_SaveThread` gave.
    case waiter(OpaquePointer?)

    func with(_ body: () -> Void) {
        switch self {
        case .crew(let thread): thread.withGIL(body)
        case .waiter(let thread):
            PyEval_RestoreThread(thread)
            body()
            _ = PyEval_SaveThread()
        }
    }
}
