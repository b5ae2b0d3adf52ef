import CPython
import Glibc
import Python
import Streams
import Synchronization

/// How connections end, and the reactor. With the GIL.
extension Reactor {
    func endOfStream(_ connection: Connection) {
        guard !connection.isReadOver, connection.overrides.contains(.eofReceived) else {
            return drainAndClose(connection)
        }
        connection.isReadOver = true
        // Readable for ever from now on: nothing is asked of the poller but to tell of the end of both directions.
        setInterest(.nothing, of: connection)
        do throws(PythonError) {
            let action = try inCallback(connection) { () throws(PythonError) in
                try calls.endOfStream(connection.protocolObject)
            }
            apply(action, to: connection)
        } catch {
            fail(connection, during: "eof_received")
        }
    }

    /// Writes what is left, then closes. Where there is no room now the poller tells when there is.
    func drainAndClose(_ connection: Connection) {
        guard sendUnsent(connection) else { return setMode(.draining, of: connection) }
        do throws(PythonError) {
            let isEmpty = try ProtocolObject.unwritten(connection.protocolObject) == 0
            let isDone = try isEmpty ? true : flush(connection)
            if isDone, connection.waitingAnswers.isEmpty { return close(connection) }
            setMode(.draining, of: connection)
        } catch {
            if PyErr_ExceptionMatches(cpython_OSError()) != 0 {
                // A peer that is gone takes nothing any more: the connection ends without what was left.
                let text = Exception.takeText() ?? ""
                host?.report("The rest could not be written: \(text)", of: connection, isExpected: true)
            } else {
                report("write_ready", of: connection)
            }
            close(connection)
        }
    }

    /// The kernel has refused a read.
    func failed(_ connection: Connection, _ error: Errno) {
        switch connection.kind {
        case .stream:
            // No mistake of the protocol's; that a peer has gone is nobody's.
            if error.code != ECONNRESET { count(inbox.statistics.errors) }
            host?.report("A read has failed: \(error)", of: connection, isExpected: true)
            close(connection)
        // What befell one datagram, such as a peer that does not listen, is not the end of a socket for all.
        case .datagrams: count(inbox.statistics.errors)
        case .listener:
            count(inbox.statistics.errors)
            // Somebody has shut it down: it would be ready for ever.
            if error.code == EINVAL || error.code == EBADF { return close(connection) }
            let now = monotonicNanoseconds()
            if now > shortageUntil {
                host?.report(Reactor.shortage(error), of: connection, isExpected: false)
            }
            shortageUntil = now + Reactor.shortageEnds
        }
    }

    /// Ends a connection whose protocol has raised, which is reported. No other is touched. A socket of datagrams goes
    /// on where one of its peers is the reason, if it has begun: it serves others too.
    func fail(_ connection: Connection, during callback: StaticString, hasBegun: Bool = true) {
        // A peer that has gone is no mistake of the protocol's: nobody is to be called for it at night.
        let isPeersDoing = PyErr_ExceptionMatches(cpython_ConnectionError()) != 0
        report(callback, of: connection, isExpected: isPeersDoing)
        if isPeersDoing, hasBegun, connection.kind == .datagrams { return forgetAnswer(connection) }
        close(connection)
    }

    func report(_ callback: StaticString, of connection: Connection?, isExpected: Bool = false) {
        if !isExpected { count(inbox.statistics.errors) }
        host?.report(exceptionIn: callback, of: connection, isExpected: isExpected)
    }

    /// Ends a connection: first the poller and the table forget it, then the protocol is told, then the
    /// descriptor is closed.
    func close(_ connection: Connection) {
        guard connection.isOpen else { return }
        if !connection.isOutOfPoller { poller?.remove(connection.fd) }
        connections.remove(connection.token)
        if connection.kind == .listener { return closeListener(connection) }
        tellOfEnd(connection)
        calls.forget(connection.protocolObject, connection.fd)
        ProtocolObject.detach(connection.protocolObject)
        connection.closeDescriptor()
        host?.ended(connection.protocolObject)
        Py_DecRef(connection.protocolObject)
        giveUpPlace()
        tellIfDrained()
    }

    /// Calls `connection_lost`, under a number of its own: what is to interrupt the callback before it must not hit it.
    private func tellOfEnd(_ connection: Connection) {
        let outer = inbox.activity.exchange(ReactorInbox.nextCallback(), ordering: .relaxed)
        host?.callbackIsOver()
        host?.tidies(true)
        defer {
            host?.tidies(false)
            inbox.activity.store(outer, ordering: .relaxed)
        }
        do throws(PythonError) {
            try calls.lost(connection.protocolObject, connection.overrides)
        } catch {
            report("connection_lost", of: connection)
        }
    }

    /// Ends listeners and every connection that has nothing to write; the others end when they have.
    func drain() {
        isDraining = true
        for connection in connections.elements {
            if connection.kind == .listener {
                close(connection)
            } else if connection.isInCallback {
                continue
            } else if connection.mode == .reading {
                drainAndClose(connection)
            }
        }
        host?.drainAdopted()
        tellIfDrained()
    }

    func tellIfDrained() {
        if isDraining, connections.count == 0, adopted == 0 { host?.drained() }
    }

    /// The objects that it refers to, but for those of what was handed over and has not begun.
    func forEachObject(_ body: (PyPointer?) -> Void) {
        body(factory)
        for connection in connections.elements {
            body(connection.protocolObject)
            body(connection.factory)
        }
    }

    /// Ends everything, also what was handed over and never begun.
    func closeAll() {
        for request in inbox.requests.close() {
            if case .open(let handoff) = request { discard(handoff) }
        }
        isDraining = true
        for connection in connections.elements {
            asCallback { close(connection) }
        }
        while let item = takeReady() { discard(item) }
        buffers.free()
        setFactory(nil)
    }

    /// Lets go of the poller. Without the GIL, when nothing is left in it.
    func abandonPoller() {
        // Perhaps nobody has needed it.
        _ = inbox.takePollerDescriptor()
        guard let poller = poller.take() else { return }
        host?.pollerAbandoned(poller.release())
    }
}
