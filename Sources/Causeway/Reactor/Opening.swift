import CPlatform
import CPython
import Glibc
import Python
import Streams

/// How connections begin: handed over, or accepted by a listener that was handed over.
extension Reactor {
    /// How long nothing is accepted after the system has run out of descriptors, in nanoseconds, unless a
    /// connection ends before.
    private static let starvation: Int64 = 100_000_000
    /// How many connections one event of a listener accepts: others have their turn in between.
    private static let acceptsPerEvent = 16

    // MARK: Handed over. With the GIL

    func open(_ handoff: Handoff) {
        if isDraining { return discard(handoff) }
        do throws(PythonError) {
            if handoff.kind == .listener { return try listen(handoff) }
            let ownFactory = handoff.factory()
            defer { Py_DecRef(ownFactory) }
            let info = try handoff.info(state)
            let data = try handoff.initialData(state)?.take()
            defer { Py_DecRef(data) }
            let made = try makeConnection(handoff.number, kind(handoff), info.pointer, ownFactory, data)
            _ = handoff.take()
            guard let connection = made,
                start(connection, during: "handoff", isSocket: handoff.kind != .stream)
            else { return }
            begin(connection)
            if let data, connection.isOpen { deliver(data, to: connection) }
        } catch {
            report("protocol factory", of: nil)
            // What the connection has taken over is closed with it.
            if !handoff.isTaken { close(handoff) }
        }
    }

    private func kind(_ handoff: Handoff) -> Connection.Kind {
        handoff.kind == .datagramSocket ? .datagrams : .stream
    }

    /// Lets go of a handoff that nobody takes.
    func discard(_ handoff: Handoff) {
        handoff.dropObjects()
        close(handoff)
    }

    private func close(_ handoff: Handoff) {
        handoff.close()
        if handoff.kind != .listener { giveUpPlace() }
    }

    /// Gives a place back: a listener may have waited for it.
    func giveUpPlace() {
        inbox.giveUpPlace()
        if !pausedListeners.isEmpty { resumeListeners() }
    }

    /// A connection with its protocol; nil where the host serves it. Takes the descriptor over where it does not throw.
    private func makeConnection(
        _ fd: Int32, _ kind: Connection.Kind, _ info: PyPointer, _ ownFactory: PyPointer?, _ data: PyPointer?
    ) throws(PythonError) -> Connection? {
        guard let host else { throw runtimeError("the reactor has ended") }
        let factory = try calls.factory(ownFactory ?? factory)
        let made = try host.produce(factory)
        if !calls.isProtocol(made.pointer),
            try host.adopt(made.pointer, by: factory, fd, info: info, data: data)
        {
            ServedDescriptors.shared.release(fd)
            adopted += 1
            count(inbox.statistics.totalConnections)
            return nil
        }
        try calls.prepare(made.pointer, fd, info: info)
        let overrides = calls.overrides(of: made.pointer)
        return Connection(Descriptor(owning: fd), kind, protocolObject: made, overrides: overrides)
    }

    /// Takes a connection up; false where it had to be ended.
    private func start(_ connection: Connection, during callback: StaticString, isSocket: Bool) -> Bool {
        do throws(Errno) {
            if connection.kind == .listener || !isSocket { try connection.makeNonBlocking() }
            try start(connection)
        } catch {
            cpython_raise_errno(error.code)
            fail(connection, during: callback, hasBegun: false)
            return false
        }
        if connection.kind != .listener { count(inbox.statistics.totalConnections) }
        return true
    }

    private func begin(_ connection: Connection) {
        ProtocolObject.attach(connection.protocolObject, inbox, connection.token)
        let outer = inbox.activity.exchange(ReactorInbox.nextCallback(), ordering: .relaxed)
        defer { inbox.activity.store(outer, ordering: .relaxed) }
        do throws(PythonError) {
            try inCallback(connection) { () throws(PythonError) in
                try calls.begin(
                    connection.protocolObject, connection.fd, connection.overrides, isServed: true)
            }
            if connection.isToBeClosed { return close(connection) }
            // A server that speaks first has filled its write_buffer.
            if connection.kind == .stream, try ProtocolObject.unwritten(connection.protocolObject) > 0 {
                write(connection)
            }
        } catch {
            fail(connection, during: "connection_made", hasBegun: false)
        }
    }

    // MARK: Accepted

    private func listen(_ handoff: Handoff) throws(PythonError) {
        let info = try handoff.info(state)
        let listener = Connection(
            Descriptor(owning: handoff.take()), .listener, protocolObject: info, overrides: [])
        listener.factory = handoff.factory()
        listeners += 1
        count(inbox.statistics.listeners)
        _ = start(listener, during: "handoff", isSocket: true)
    }

    /// Accepts what waits and has room. Without the GIL.
    func accept(_ listener: Connection) {
        // The mode belongs to all who share the socket, and some other program may have changed it: accept would
        // block this thread. The call that looks costs a tenth of one that accepts.
        try? listener.makeNonBlocking()
        for _ in 0..<Reactor.acceptsPerEvent {
            // The last place is not taken, not even for a moment, unless somebody waits for it: a handoff that
            // comes then would be refused.
            if !inbox.reserve(leaving: 1) {
                guard isAwaited(listener) else { return }
                guard inbox.reserve() else { return pause(listener) }
            }
            var address = SocketAddress()
            let fd = address.fill { cplatform_accept(listener.fd, $0, $1) }
            if fd >= 0 {
                _ = ServedDescriptors.shared.claim(fd)
                add(.accepted(fd, address), of: listener)
                continue
            }
            let error = Errno.last()
            inbox.giveUpPlace()
            switch error.code {
            case EINTR, ECONNABORTED, EPROTO: continue
            case EMFILE, ENFILE, ENOBUFS, ENOMEM:
                if starvedUntil == 0 { add(.failed(error), of: listener) }
                starvedUntil = monotonicNanoseconds() + Reactor.starvation
                return pause(listener)
            case EAGAIN: return
            // The peer was gone before it was accepted: the kernel hands on what befell that connection.
            default:
                if error.code == EINVAL || error.code == EBADF { add(.failed(error), of: listener) }
                return
            }
        }
    }

    /// Whether there is a connection to accept.
    private func isAwaited(_ listener: Connection) -> Bool {
        var look = pollfd(fd: listener.fd, events: Int16(truncatingIfNeeded: POLLIN), revents: 0)
        return Glibc.poll(&look, 1, 0) > 0
    }

    /// What is to be done about a listener that could not accept.
    static func shortage(_ error: Errno) -> String {
        let remedy =
            switch error.code {
            case EMFILE:
                "raise the limit of open files (ulimit -n, LimitNOFILE of a service), which is \(openFilesLimit())"
            case ENFILE: "raise the limit of open files of the system (sysctl fs.file-max)"
            default: "the system needs more memory"
            }
        let wait = "Peers wait in the listener's queue, and are served as others end"
        return "No connection can be accepted: \(error). \(wait); \(remedy)."
    }

    private static func openFilesLimit() -> UInt64 {
        var limit = rlimit()
        _ = getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        return UInt64(limit.rlim_cur)
    }

    /// Accepts nothing more until there is room: peers wait in the kernel's queue.
    private func pause(_ listener: Connection) {
        guard !listener.isOutOfPoller else { return }
        leavePoller(listener)
        pausedListeners.append(listener)
    }

    /// There may be room again.
    func resumeListeners() {
        let paused = pausedListeners
        pausedListeners = []
        starvedUntil = 0
        for listener in paused { enterPoller(listener) }
    }

    /// A connection that a listener has accepted. With the GIL.
    func begin(_ fd: Int32, _ address: SocketAddress, of listener: Connection) {
        if isDraining { return abandonAccepted(fd) }
        do throws(PythonError) {
            let info = try Object(PyDict_Copy(listener.protocolObject))
            try address.describe(in: info.pointer)
            guard let connection = try makeConnection(fd, .stream, info.pointer, listener.factory, nil),
                start(connection, during: "accept", isSocket: true)
            else { return }
            begin(connection)
        } catch {
            report("protocol factory", of: nil)
            abandonAccepted(fd)
        }
    }

    /// Closes a connection that was accepted and that nobody serves.
    func abandonAccepted(_ fd: Int32) {
        ServedDescriptors.shared.release(fd)
        _ = Descriptor(owning: fd)
        giveUpPlace()
    }

    func closeListener(_ listener: Connection) {
        listeners -= 1
        inbox.statistics.listeners.subtract(1, ordering: .relaxed)
        pausedListeners.removeAll { $0 === listener }
        listener.closeDescriptor()
        Py_DecRef(listener.protocolObject)
        Py_DecRef(listener.factory)
    }
}
