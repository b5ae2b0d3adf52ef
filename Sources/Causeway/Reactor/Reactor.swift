import CPlatform
import CPython
import Glibc
import Python
import Streams
import Synchronization

/// The connections of one thread: reads without the GIL, callbacks in one hold of it for all that is
/// ready, writes at once. It belongs to that thread, a context's or one of plain Python.
///
/// A callback that waits for an Erlang function lets the thread serve on: then turns run on top of a turn.
/// What was read is served in its order all the same, and a connection that is in a callback gets no other.
final class Reactor {
    /// How many events one poll reports, and how many buffers one turn fills.
    private static let eventsPerPoll = 64
    /// A lack of descriptors is over, and the next one another, when so long nothing was lacking.
    static let shortageEnds: Int64 = 10_000_000_000
    /// Between callbacks, other work of the thread is looked at after so long.
    private static let patience: Int64 = 500_000

    /// What is to be done for a connection in this turn.
    struct Ready {
        let connection: Connection
        let kind: Kind
        enum Kind {
            case data(buffer: Int)
            case accepted(Int32, SocketAddress)
            case endOfStream
            case failed(Errno)
            case writable
        }
    }

    let inbox: ReactorInbox
    let state: ModuleState
    let calls: ProtocolCalls
    // It owns this reactor, and so outlives it; a weak reference would cost every callback two atomic operations.
    unowned(unsafe) var host: (any ReactorHost)?
    var poller: Poller?
    var connections = SlotTable<Connection>()
    /// What makes protocols here, where it is not the interpreter's factory.
    private(set) var factory: PyPointer?
    /// How many connections the host has adopted.
    var adopted = 0
    /// How many listeners there are, and those that wait until there is room for more connections.
    var listeners = 0
    var pausedListeners: [Connection] = []
    /// Until when nothing is accepted because the process or the system has no descriptors left; 0 otherwise.
    var starvedUntil: Int64 = 0
    /// Until when a lack of descriptors is the same as the one that was reported.
    var shortageUntil: Int64 = 0
    /// Those whose receiver has no room, of which no poller tells, and when to try again; 0 where there is none.
    var stalled: [Connection] = []
    var retryAt: Int64 = 0
    var retryPause = Reactor.shortestPause
    /// Nothing new is accepted, and connections end as soon as they have written what they have to.
    var isDraining = false
    private var events = 0
    private var ready: [Ready] = []
    /// How many of these were taken to be served.
    private var served = 0
    var buffers: ReadBuffers
    private static let bell = Poller.Token(slot: .max, generation: 0)
    private static let wakeUp = Poller.Token(slot: .max, generation: 1)
    private var wakeUpDescriptor: Int32 = -1

    init(inbox: ReactorInbox, state: ModuleState) {
        self.inbox = inbox
        self.state = state
        calls = ProtocolCalls(state: state)
        buffers = ReadBuffers(count: Reactor.eventsPerPoll)
        ready.reserveCapacity(2 * Reactor.eventsPerPoll)
    }

    /// Whether there is anything to poll for.
    var isServing: Bool { connections.count > 0 }

    /// Whether `serveReady` has something to do.
    var hasWork: Bool { served < ready.count || buffers.areMissing || isStarvationOver || isRetryDue }

    /// Whether somebody has to look again without being woken: `poll` waits no longer than until then.
    var isStarved: Bool { starvedUntil != 0 || retryAt != 0 }

    private var isStarvationOver: Bool { starvedUntil != 0 && monotonicNanoseconds() >= starvedUntil }
    private var isRetryDue: Bool { retryAt != 0 && monotonicNanoseconds() >= retryAt }

    /// Takes over the reference to what makes protocols here. With the GIL.
    func setFactory(_ factory: PyPointer?) {
        let old = self.factory
        self.factory = factory
        inbox.hasFactory.store(factory != nil, ordering: .sequentiallyConsistent)
        Py_DecRef(old)
    }

    // MARK: Without the GIL

    /// Waits for events; see `Poller.wait`. Returns how many there are.
    @discardableResult
    func poll(milliseconds: Int32) -> Int {
        if milliseconds != 0 { count(inbox.statistics.readWaits) }
        events = poller?.wait(milliseconds: isStarved ? shorter(milliseconds) : milliseconds) ?? 0
        return events
    }

    private func shorter(_ milliseconds: Int32) -> Int32 {
        let time = min(starvedUntil == 0 ? .max : starvedUntil, retryAt == 0 ? .max : retryAt)
        let left = Int32(clamping: max(0, time - monotonicNanoseconds()) / 1_000_000 + 1)
        return milliseconds < 0 ? left : min(milliseconds, left)
    }

    /// Reads what the last poll found, as far as there are buffers: those that are missing are made under
    /// the GIL, and read then.
    func readReady() {
        // What a turn below this one has read comes first. Events come again: they are level-triggered.
        guard served == ready.count else { return }
        buffers.begin()
        guard events > 0 else { return }
        for index in 0..<events {
            guard let event = poller?.event(index) else { continue }
            if event.token.slot == Reactor.bell.slot {
                if event.token == Reactor.bell { inbox.doorbell.silence() } else { emptyWakeUp() }
                continue
            }
            guard let connection = connections[event.token] else { continue }
            if connection.isInCallback {
                // Or the poller would tell again and again until the callback returns.
                leavePoller(connection)
            } else {
                note(event, of: connection, others: events - index - 1)
            }
        }
        events = 0
    }

    /// Reads, or notes that it can be written. So many other events are still to be looked at.
    @inline(__always)
    private func note(_ event: Poller.Event, of connection: Connection, others: Int) {
        switch connection.mode {
        case .reading:
            guard event.isReadable else { return }
            switch connection.kind {
            case .stream: readStream(connection, isHungUp: event.isHungUp)
            case .datagrams: readDatagrams(connection, isOver: event.isOver, others: others)
            case .listener: accept(connection)
            }
        case .writing, .draining:
            if event.isWritable { add(.writable, of: connection) }
        case .waitingForSignal:
            // The kernel tells of a peer that is gone whatever it was asked.
            if event.isHungUp { hungUp(connection) }
        }
    }

    /// The peer of a connection that waits for a signal takes nothing any more, and sends nothing.
    private func hungUp(_ connection: Connection) {
        // Or the poller would tell again and again.
        leavePoller(connection)
        // What it has sent before is still to be read, when the protocol wants to. Datagrams have other peers.
        guard connection.kind == .stream, cplatform_readable_bytes(connection.fd) <= 0 else { return }
        add(.endOfStream, of: connection)
    }

    /// Notes what is to be done under the GIL.
    func add(_ kind: Ready.Kind, of connection: Connection) {
        ready.append(Ready(connection: connection, kind: kind))
    }

    @inline(__always)
    private func readStream(_ connection: Connection, isHungUp: Bool) {
        if connection.isReadOver {
            // Nobody asked for this: both directions are over now.
            if isHungUp { add(.endOfStream, of: connection) }
            return
        }
        // Without a buffer the event comes again with the next poll: it is level-triggered.
        guard let (memory, index) = buffers.next() else { return }
        switch readAvailable(connection.fd, memory, ReadBuffers.size) {
        case .bytes(0): add(.endOfStream, of: connection)
        case .bytes(let count):
            buffers.fill(count)
            add(.data(buffer: index), of: connection)
        case .wouldBlock: break
        case .noMemory: readLater(connection)
        case .failed(let error): add(.failed(error), of: connection)
        }
    }

    // MARK: With the GIL

    /// Runs a callback under a number by which the janitor knows what it would interrupt.
    @inline(__always)
    func asCallback(_ body: () -> Void) {
        inbox.activity.store(ReactorInbox.nextCallback(), ordering: .relaxed)
        body()
        inbox.activity.store(0, ordering: .relaxed)
        host?.callbackIsOver()
    }

    /// Serves what was read. Between callbacks, when some time has passed, `yield` lets other work in.
    func serveReady(hasOtherWork: () -> Bool, yield: () -> Void) {
        buffers.refill(connections.count, state)
        if isStarvationOver { resumeListeners() }
        if isRetryDue { retry() }
        if ready.isEmpty { return }
        var since = monotonicNanoseconds()
        let start = since
        var yielded: Int64 = 0
        while let item = takeReady() {
            guard item.connection.isOpen else {
                discard(item)
                continue
            }
            asCallback { serve(item) }
            guard hasOtherWork() else { continue }
            let now = monotonicNanoseconds()
            if now - since > Reactor.patience {
                yield()
                since = monotonicNanoseconds()
                yielded += since - now
            }
        }
        count(inbox.statistics.callbackTime, Int(monotonicNanoseconds() - start - yielded))
    }

    func takeReady() -> Ready? {
        guard served < ready.count else { return nil }
        let item = ready[served]
        served += 1
        if served == ready.count {
            ready.removeAll(keepingCapacity: true)
            served = 0
        }
        return item
    }

    /// What was read for a connection that has ended meanwhile.
    func discard(_ item: Ready) {
        if case .accepted(let fd, _) = item.kind { abandonAccepted(fd) }
    }

    @inline(__always)
    private func serve(_ item: Ready) {
        let connection = item.connection
        switch item.kind {
        case .data(let index): deliver(buffer: index, to: connection)
        case .writable: write(connection)
        case .accepted(let fd, let address): begin(fd, address, of: connection)
        case .endOfStream: endOfStream(connection)
        case .failed(let error): failed(connection, error)
        }
        deliverHeldDatagrams(connection)
    }

    private func deliver(buffer index: Int, to connection: Connection) {
        // Out of its place meanwhile: a turn on top of this one must not read into it.
        guard let buffer = buffers.take(index) else { return }
        defer { buffers.takeBack(buffer, index, state) }
        if connection.kind == .datagrams {
            if isHeldBack(connection) { return hold(buffer, from: buffers.sources[index], for: connection) }
            ProtocolObject.setPeer(connection.protocolObject, buffers.sources[index])
        }
        deliver(buffer, to: connection)
    }

    /// Hands over a buffer of which the caller has a reference.
    func deliver(_ buffer: PyPointer, to connection: Connection) {
        count(inbox.statistics.requests)
        count(inbox.statistics.bytesIn, buffer.cast(to: ReactorBuffer.self).pointee.count)
        do throws(PythonError) {
            let action = try inCallback(connection) { () throws(PythonError) in
                try calls.received(connection.protocolObject, buffer)
            }
            apply(action, to: connection)
        } catch {
            fail(connection, during: "data_received")
        }
    }

    /// Runs a callback of a connection. What comes for the connection meanwhile waits until it is over.
    @inline(__always)
    func inCallback<Result>(
        _ connection: Connection, _ body: () throws(PythonError) -> Result
    ) throws(PythonError) -> Result {
        connection.isInCallback = true
        connection.isSignalled = false
        defer {
            connection.isInCallback = false
            if connection.isOutOfPoller { enterPoller(connection) }
        }
        return try body()
    }

    func apply(_ action: Action, to connection: Connection) {
        guard connection.isOpen else { return }
        if connection.isToBeClosed { return close(connection) }
        switch action {
        case .continue: if isDraining, connection.mode == .reading { drainAndClose(connection) }
        case .readPending: setMode(.reading, of: connection)
        // Tried at once: most writes have room.
        case .writePending: write(connection)
        case .asyncPending: waitForSignal(connection)
        case .close: drainAndClose(connection)
        }
    }

    /// Waits for `signal_write_ready`, which may have come during the callback that asks for this.
    private func waitForSignal(_ connection: Connection) {
        setMode(.waitingForSignal, of: connection)
        guard connection.isSignalled, connection.isOpen else { return }
        connection.isSignalled = false
        // Not at once: who signals in each of its methods would have no end of this one.
        _ = inbox.submit(.writeReady(connection.token))
    }

    /// Lets a connection write, by Python where its class wants that.
    func write(_ connection: Connection) {
        if connection.mode == .draining { return drainAndClose(connection) }
        if !sendUnsent(connection) { return setMode(.writing, of: connection) }
        do throws(PythonError) {
            if !connection.overrides.contains(.writeReady) {
                let isDone = try flush(connection)
                setMode(isDone ? .reading : .writing, of: connection)
                return
            }
            let action = try inCallback(connection) { () throws(PythonError) in
                try calls.writable(connection.protocolObject)
            }
            guard connection.isOpen else { return }
            if connection.isToBeClosed { return close(connection) }
            switch action {
            case .continue, .writePending: setMode(.writing, of: connection)
            case .readPending: setMode(.reading, of: connection)
            case .asyncPending: waitForSignal(connection)
            case .close: drainAndClose(connection)
            }
        } catch {
            fail(connection, during: "write_ready")
        }
    }

    /// Writes what it can of `write_buffer`; true when nothing is left.
    func flush(_ connection: Connection) throws(PythonError) -> Bool {
        if connection.kind == .datagrams { return try flushDatagram(connection) }
        return try ProtocolObject.flush(connection.protocolObject)
    }

    func setMode(_ mode: Connection.Mode, of connection: Connection) {
        guard connection.isOpen else { return }
        connection.mode = mode
        if mode == .reading, isDraining {
            return connection.waitingAnswers.isEmpty ? close(connection) : drainAndClose(connection)
        }
        let interest: Poller.Interest =
            switch mode {
            case .reading: connection.isReadOver ? .nothing : .read
            case .writing, .draining: isStalled(connection) ? .nothing : .write
            case .waitingForSignal: .nothing
            }
        setInterest(interest, of: connection)
    }

    func setInterest(_ interest: Poller.Interest, of connection: Connection) {
        guard connection.interest != interest || connection.isOutOfPoller else { return }
        connection.interest = interest
        // It was taken out while it waited for a signal, when its peer had gone: the poller is to tell of that again.
        if connection.isOutOfPoller { return enterPoller(connection) }
        do throws(Errno) {
            try poller?.modify(connection.fd, token: connection.token, interest: interest)
        } catch {
            close(connection)
        }
    }

    func leavePoller(_ connection: Connection) {
        poller?.remove(connection.fd)
        connection.isOutOfPoller = true
    }

    func enterPoller(_ connection: Connection) {
        guard connection.isOpen else { return }
        connection.isOutOfPoller = false
        do throws(Errno) {
            try poller?.add(connection.fd, token: connection.token, interest: connection.interest)
        } catch { close(connection) }
    }

    // MARK: Requests

    /// Takes over descriptors, and does what other threads have asked for.
    func takeRequests() {
        var left = Reactor.eventsPerPoll
        while left > 0, let request = inbox.requests.popFirst() {
            left -= 1
            switch request {
            case .open(let handoff): open(handoff)
            case .writeReady(let token):
                guard let connection = connections[token], connection.isOpen else { continue }
                if connection.isInCallback {
                    connection.isSignalled = true
                } else if connection.mode == .waitingForSignal || connection.mode == .reading {
                    write(connection)
                    deliverHeldDatagrams(connection)
                }
            case .close(let token):
                guard let connection = connections[token] else { continue }
                if connection.isInCallback { connection.isToBeClosed = true } else { close(connection) }
            case .finish(let token):
                guard let connection = connections[token] else { continue }
                if connection.isInCallback {
                    connection.isToBeClosed = true
                } else {
                    drainAndClose(connection)
                }
            case .adoptedEnded:
                adopted -= 1
                giveUpPlace()
                tellIfDrained()
            case .drain: drain()
            }
        }
    }

    /// Has `poll` end when there is something to read from a descriptor, which stays the caller's.
    func wakeUp(by descriptor: Int32) throws(Errno) {
        if poller == nil { try makePoller() }
        try poller?.add(descriptor, token: Reactor.wakeUp, interest: .read)
        wakeUpDescriptor = descriptor
    }

    private func emptyWakeUp() {
        withUnsafeTemporaryAllocation(byteCount: 256, alignment: 1) { memory in
            guard let base = memory.baseAddress else { return }
            _ = readAvailable(wakeUpDescriptor, base, memory.count)
        }
    }

    /// Gives a connection its place in the table and in the poller.
    func start(_ connection: Connection) throws(Errno) {
        guard let token = connections.insert(connection) else { throw Errno(ENFILE) }
        connection.token = token
        if poller == nil { try makePoller() }
        try poller?.add(connection.fd, token: token, interest: .read)
    }

    private func makePoller() throws(Errno) {
        try inbox.prepare()
        guard let descriptor = inbox.takePollerDescriptor() else { throw Errno(EBADF) }
        let made = Poller(owning: descriptor, capacity: Reactor.eventsPerPoll)
        try made.add(try inbox.doorbell.descriptor(), token: Reactor.bell, interest: .read)
        host?.pollerMade(made.descriptor)
        poller = consume made
    }
}
