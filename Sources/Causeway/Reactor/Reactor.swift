import Beam
import CErlNif
import CPython
import Glibc
import Python
import Streams
import Synchronization

/// The connections of one context: reads without the GIL, callbacks in one hold of it for all that is
/// ready, writes at once. It belongs to the context's thread.
///
/// A callback that waits for an Erlang function lets the thread serve on: then turns run on top of a turn.
/// What was read is served in its order all the same, and a connection that is in a callback gets no other.
final class Reactor {
    /// How many connections one poll serves.
    private static let eventsPerPoll = 64
    /// How much is read at once from one connection.
    private static let readSize = 65536
    /// Between callbacks, calls from Erlang are looked at after so long.
    private static let callPatience: Int64 = 500_000

    /// What is to be done for a connection in this turn.
    private struct Ready {
        let connection: Connection
        let kind: Kind
        enum Kind {
            case data(buffer: Int)
            case endOfStream
            case failed(Errno)
            case writable
        }
    }

    /// For messages to the owner, made one after the other.
    private let messages = Environment()
    private let context: Context
    private let state: ModuleState
    private let calls: ProtocolCalls
    private var poller: Poller?
    private var connections = SlotTable<Connection>()
    private var events = 0
    private var ready: [Ready] = []
    /// How many of these were taken to be served.
    private var served = 0
    /// One buffer for each event of a poll, filled in order; nil where none was made yet.
    private var buffers: [PyPointer?]
    private static let bell = Poller.Token(slot: .max, generation: 0)

    init(context: Context, state: ModuleState) {
        self.context = context
        self.state = state
        calls = ProtocolCalls(state: state)
        buffers = Array(repeating: nil, count: Reactor.eventsPerPoll)
        ready.reserveCapacity(Reactor.eventsPerPoll)
    }

    /// Whether there is anything to poll for.
    var isServing: Bool { connections.count > 0 }

    /// Whether `serveReady` has something to do.
    var hasWork: Bool { served < ready.count || hasUnread }

    /// Something was ready for which there was no buffer.
    private var hasUnread = false
    /// How many buffers this turn has filled.
    private var filledBuffers = 0

    // MARK: Without the GIL

    /// Asks the owner to have the BEAM watch the connections.
    func askOwnerToWatch() {
        send(to: context.owner, messages, makeTuple(messages.pointer, atoms.causeway, atoms.idle))
    }

    /// Waits for events; see `Poller.wait`. Returns how many there are.
    @discardableResult
    func poll(milliseconds: Int32) -> Int {
        events = poller?.wait(milliseconds: milliseconds) ?? 0
        return events
    }

    /// Reads what the last poll found, as far as there are buffers: those that are missing are made under
    /// the GIL, and read then.
    func readReady() {
        // What a turn below this one has read comes first. Events come again: they are level-triggered.
        guard served == ready.count else { return }
        hasUnread = false
        filledBuffers = 0
        guard events > 0 else { return }
        for index in 0..<events {
            guard let event = poller?.event(index) else { continue }
            if event.token == Reactor.bell {
                context.doorbell.silence()
                continue
            }
            guard let connection = connections[event.token] else { continue }
            if connection.isInCallback {
                // Or the poller would tell again and again until the callback returns.
                leavePoller(connection)
            } else {
                note(event, of: connection)
            }
        }
        events = 0
    }

    @inline(__always)
    private func note(_ event: Poller.Event, of connection: Connection) {
        switch connection.mode {
        case .reading:
            guard event.isReadable else { return }
            // Without a buffer the event comes again with the next poll: it is level-triggered.
            guard let buffer = buffers[filledBuffers] else {
                hasUnread = true
                return
            }
            guard let kind = read(connection, into: buffer) else { return }
            ready.append(Ready(connection: connection, kind: kind))
        case .writing, .draining:
            if event.isWritable { ready.append(Ready(connection: connection, kind: .writable)) }
        case .waitingForSignal:
            // The kernel tells of a peer that is gone whatever it was asked; the protocol's next write
            // finds out by itself. Until then the connection is out of the poller, or it would spin.
            if event.isHungUp { leavePoller(connection) }
        }
    }

    /// The buffer belongs to the reactor alone: its fields need no GIL.
    private func read(_ connection: Connection, into buffer: PyPointer) -> Ready.Kind? {
        let fields = buffer.cast(to: ReactorBuffer.self)
        guard let memory = fields.pointee.base else { return nil }
        switch readAvailable(connection.fd, memory, Reactor.readSize) {
        case .bytes(0): return .endOfStream
        case .bytes(let count):
            fields.pointee.count = count
            filledBuffers += 1
            return .data(buffer: filledBuffers - 1)
        case .wouldBlock: return nil
        case .failed(let error): return .failed(error)
        }
    }

    // MARK: With the GIL

    /// Serves what was read. Between callbacks, when some time has passed, `yield` lets calls in.
    func serveReady(yield: () -> Void) {
        refillBuffers()
        if ready.isEmpty { return }
        var since = monotonicNanoseconds()
        while let item = takeReady() {
            guard item.connection.isOpen else { continue }
            context.activity.store(Context.nextCallback(), ordering: .relaxed)
            serve(item)
            context.activity.store(0, ordering: .relaxed)
            guard !context.calls.isEmpty else { continue }
            let now = monotonicNanoseconds()
            if now - since > Reactor.callPatience {
                yield()
                since = monotonicNanoseconds()
            }
        }
    }

    private func takeReady() -> Ready? {
        guard served < ready.count else { return nil }
        let item = ready[served]
        served += 1
        if served == ready.count {
            ready.removeAll(keepingCapacity: true)
            served = 0
        }
        return item
    }

    private func refillBuffers() {
        guard hasUnread || buffers[0] == nil else { return }
        for index in 0..<min(buffers.count, max(1, connections.count)) where buffers[index] == nil {
            guard let made = try? ReactorBuffer.make(state.bufferType, capacity: Reactor.readSize) else {
                PyErr_Clear()
                return
            }
            buffers[index] = made.take()
        }
    }

    private func serve(_ item: Ready) {
        let connection = item.connection
        switch item.kind {
        case .data(let buffer): deliver(buffer, to: connection)
        case .writable: write(connection)
        case .endOfStream: drainAndClose(connection)
        case .failed: close(connection)
        }
    }

    private func deliver(_ index: Int, to connection: Connection) {
        guard let buffer = buffers[index] else { return }
        // Out of its place meanwhile: a turn on top of this one must not read into it.
        buffers[index] = nil
        let size = buffer.cast(to: ReactorBuffer.self).pointee.count
        count(context.statistics.requests)
        count(context.statistics.bytesIn, size)
        do throws(PythonError) {
            let action = try inCallback(connection) { () throws(PythonError) in
                try calls.received(connection.protocolObject, buffer)
            }
            takeBack(buffer, index)
            apply(action, to: connection)
        } catch {
            takeBack(buffer, index)
            fail(connection, during: "data_received")
        }
    }

    /// Reuses a buffer that nobody else refers to, and gives any other away.
    private func takeBack(_ buffer: PyPointer, _ index: Int) {
        let fields = buffer.cast(to: ReactorBuffer.self)
        if cpython_refcount(buffer) == 1, fields.pointee.exports == 0, buffers[index] == nil {
            fields.pointee.count = 0
            buffers[index] = buffer
            return
        }
        // Whoever keeps it keeps what was read, not the room for more; a memoryview forbids to move it.
        if fields.pointee.exports == 0, fields.pointee.count < fields.pointee.capacity / 2,
            let smaller = realloc(fields.pointee.base, max(1, fields.pointee.count))
        {
            fields.pointee.base = smaller
            fields.pointee.capacity = fields.pointee.count
        }
        Py_DecRef(buffer)
        guard buffers[index] == nil else { return }
        buffers[index] = (try? ReactorBuffer.make(state.bufferType, capacity: Reactor.readSize))?.take()
        if buffers[index] == nil { PyErr_Clear() }
    }

    /// Runs a callback of a connection. What comes for the connection meanwhile waits until it is over.
    @inline(__always)
    private func inCallback<Result>(
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

    private func leavePoller(_ connection: Connection) {
        poller?.remove(connection.fd)
        connection.isOutOfPoller = true
    }

    private func enterPoller(_ connection: Connection) {
        guard connection.isOpen else { return }
        connection.isOutOfPoller = false
        do throws(Errno) {
            try poller?.add(connection.fd, token: connection.token, interest: connection.interest)
        } catch { close(connection) }
    }

    private func apply(_ action: Action, to connection: Connection) {
        guard connection.isOpen else { return }
        if connection.isToBeClosed { return close(connection) }
        switch action {
        case .continue: break
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
        write(connection)
    }

    /// Lets a connection write, by Python where its class wants that.
    private func write(_ connection: Connection) {
        if connection.mode == .draining { return drainAndClose(connection) }
        do throws(PythonError) {
            if connection.writesNatively {
                let size = ProtocolObject.unwritten(connection.protocolObject)
                let isDone = try ProtocolObject.flush(connection.protocolObject)
                count(context.statistics.bytesOut, size - ProtocolObject.unwritten(connection.protocolObject))
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

    private func setMode(_ mode: Connection.Mode, of connection: Connection) {
        guard connection.isOpen else { return }
        connection.mode = mode
        let interest: Poller.Interest =
            switch mode {
            case .reading: .read
            case .writing, .draining: .write
            case .waitingForSignal: .nothing
            }
        guard connection.interest != interest else { return }
        connection.interest = interest
        // It was taken out while it waited for a signal from a peer that is gone.
        if connection.isOutOfPoller { return enterPoller(connection) }
        do throws(Errno) {
            try poller?.modify(connection.fd, token: connection.token, interest: interest)
        } catch {
            close(connection)
        }
    }

    // MARK: Requests

    /// Takes over descriptors, and does what Python threads asked for.
    func takeRequests() {
        var left = Reactor.eventsPerPoll
        while left > 0, let request = context.reactorRequests.popFirst() {
            left -= 1
            switch request {
            case .open(let handoff): open(handoff)
            case .writeReady(let token):
                guard let connection = connections[token], connection.isOpen else { continue }
                if connection.isInCallback {
                    connection.isSignalled = true
                } else if connection.mode == .waitingForSignal {
                    write(connection)
                }
            case .close(let token):
                guard let connection = connections[token] else { continue }
                if connection.isInCallback { connection.isToBeClosed = true } else { close(connection) }
            }
        }
    }

    private func open(_ handoff: Handoff) {
        let connection: Connection
        do throws(PythonError) {
            connection = try makeConnection(handoff)
        } catch {
            handoff.discard()
            context.connections.subtract(1, ordering: .relaxed)
            return report("protocol factory", of: nil)
        }
        count(context.statistics.totalConnections)
        do throws(Errno) {
            try start(connection)
        } catch {
            PyErr_SetString(cpython_RuntimeError(), "the connection cannot be waited for: \(error)")
            return fail(connection, during: "handoff")
        }
        begin(connection)
    }

    /// Takes the descriptor over where it does not throw.
    private func makeConnection(_ handoff: Handoff) throws(PythonError) -> Connection {
        let info = try Decoder(env: handoff.environment.pointer, state: state).object(handoff.info)
        let made = try calls.make(handoff.number, info: info.pointer)
        let isNative = calls.writesNatively(made.pointer)
        return Connection(Descriptor(owning: handoff.number), protocolObject: made, writesNatively: isNative)
    }

    /// Gives a connection its place in the table and in the poller.
    private func start(_ connection: Connection) throws(Errno) {
        guard let token = connections.insert(connection) else { throw Errno(ENFILE) }
        connection.token = token
        if poller == nil { try makePoller() }
        try poller?.add(connection.fd, token: token, interest: .read)
    }

    private func makePoller() throws(Errno) {
        let made = try Poller(capacity: Reactor.eventsPerPoll)
        try made.add(try context.doorbell.descriptor(), token: Reactor.bell, interest: .read)
        context.pollerMade(made.descriptor)
        poller = consume made
    }

    private func begin(_ connection: Connection) {
        ProtocolObject.attach(connection.protocolObject, context, connection.token)
        do throws(PythonError) {
            try during(Context.nextCallback()) { () throws(PythonError) in
                try inCallback(connection) { () throws(PythonError) in
                    try calls.begin(connection.protocolObject, connection.fd)
                }
            }
            if connection.isToBeClosed { return close(connection) }
            // A server that speaks first has filled its write_buffer.
            if ProtocolObject.unwritten(connection.protocolObject) > 0 { write(connection) }
        } catch {
            fail(connection, during: "connection_made")
        }
    }

    // MARK: The end of connections

    /// Writes what is left, then closes. Where there is no room now the poller tells when there is.
    private func drainAndClose(_ connection: Connection) {
        let size = ProtocolObject.unwritten(connection.protocolObject)
        guard size > 0 else { return close(connection) }
        do throws(PythonError) {
            let isDone = try ProtocolObject.flush(connection.protocolObject)
            count(context.statistics.bytesOut, size - ProtocolObject.unwritten(connection.protocolObject))
            if isDone { return close(connection) }
            setMode(.draining, of: connection)
        } catch {
            // A peer that is gone takes nothing any more: the connection ends without what was left.
            PyErr_Clear()
            close(connection)
        }
    }

    /// Ends a connection whose protocol has raised, which is logged. No other is touched.
    private func fail(_ connection: Connection, during callback: StaticString) {
        // A peer that has gone is no mistake of the protocol's: nobody is to be called for it at night.
        let isPeersDoing = PyErr_ExceptionMatches(cpython_ConnectionError()) != 0
        report(callback, of: connection, level: isPeersDoing ? atoms.debug : atoms.error)
        close(connection)
    }

    /// Ends a connection: first the poller and the table forget it, then the protocol is told, then the
    /// descriptor is closed.
    private func close(_ connection: Connection) {
        guard connection.isOpen else { return }
        if !connection.isOutOfPoller { poller?.remove(connection.fd) }
        connections.remove(connection.token)
        do throws(PythonError) {
            try calls.lost(connection.protocolObject)
        } catch {
            report("connection_lost", of: connection)
        }
        ProtocolObject.detach(connection.protocolObject)
        connection.closeDescriptor()
        Py_DecRef(connection.protocolObject)
        context.connections.subtract(1, ordering: .relaxed)
    }

    /// Ends everything, also what was handed over and never begun.
    func closeAll() {
        for request in context.reactorRequests.close() {
            if case .open(let handoff) = request {
                handoff.discard()
                context.connections.subtract(1, ordering: .relaxed)
            }
        }
        for connection in connections.elements {
            context.activity.store(Context.nextCallback(), ordering: .relaxed)
            close(connection)
            context.activity.store(0, ordering: .relaxed)
        }
        ready = []
        served = 0
        for buffer in buffers { Py_DecRef(buffer) }
        buffers = []
    }

    /// Lets go of the poller. Without the GIL, when nothing is left in it.
    func abandonPoller() {
        guard let poller = poller.take() else { return }
        // Its descriptor is closed by whoever lets go of it last: see PollerDescriptor.
        _ = poller.release()
        context.pollerAbandoned()
    }

    // MARK: Errors

    /// Tells the owner of an exception in a callback, which it logs; the exception is cleared.
    private func report(_ callback: StaticString, of connection: Connection?, level: Term = atoms.error) {
        if level == atoms.error { count(context.statistics.errors) }
        guard let exception = Exception.take() else { return }
        // Its own: what describes an exception may wait for Erlang, and another be reported meanwhile.
        let report = Environment()
        let env = report.pointer
        var details: [(Term, Term)] = [(atoms.callback, makeBinary(env, "\(callback)"))]
        details.append((atoms.error, ExceptionTerm(env: env, state: state).map(of: exception.value.pointer)))
        if let connection {
            details.append((atoms.fd, enif_make_int(env, connection.fd)))
            details.append((atoms.peer, peer(of: connection, env)))
        }
        let event = makeTuple(env, atoms.log, level, makeMap(env, details))
        send(to: context.owner, report, makeTuple(env, atoms.causeway, event))
    }

    /// What Erlang told about the connection.
    private func peer(of connection: Connection, _ env: EnvPointer?) -> Term {
        guard let info = connection.protocolObject.cast(to: ProtocolObject.self).pointee.clientInfo else {
            return atoms.undefined
        }
        var encoder = Encoder(env: env, state: state)
        guard let term = try? encoder.term(info) else {
            PyErr_Clear()
            return atoms.undefined
        }
        return term
    }

    /// Runs a callback under a number, by which the janitor knows what it would interrupt.
    @inline(__always)
    private func during<Result>(_ activity: UInt64, _ body: () throws(PythonError) -> Result)
        throws(PythonError) -> Result
    {
        context.activity.store(activity, ordering: .relaxed)
        defer { context.activity.store(0, ordering: .relaxed) }
        return try body()
    }
}
