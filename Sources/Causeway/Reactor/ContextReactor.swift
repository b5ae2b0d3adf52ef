import Beam
import CErlNif
import CPython
import Python
import Streams

/// The reactor of a context: the owner process logs, and has the BEAM watch idle connections.
extension ContextThread: ReactorHost {
    /// What a callback has raised becomes `{causeway, {log, Level, Report}}` for the owner.
    func report(exceptionIn callback: StaticString, of connection: Connection?, isExpected: Bool) {
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
        let level = isExpected ? atoms.debug : atoms.error
        let event = makeTuple(env, atoms.log, level, makeMap(env, details))
        send(to: context.owner, report, makeTuple(env, atoms.causeway, event))
    }

    /// The same for what no callback has raised.
    func report(_ text: String, of connection: Connection, isExpected: Bool) {
        let report = Environment()
        let env = report.pointer
        let details = [
            (atoms.text, makeBinary(env, text)), (atoms.fd, enif_make_int(env, connection.fd)),
            (atoms.peer, peer(of: connection, env)),
        ]
        let level = isExpected ? atoms.debug : atoms.error
        let event = makeTuple(env, atoms.log, level, makeMap(env, details))
        send(to: context.owner, report, makeTuple(env, atoms.causeway, event))
    }

    /// What Erlang told about the connection, and the address of its peer where Erlang did not.
    private func peer(of connection: Connection, _ env: EnvPointer?) -> Term {
        let info =
            connection.kind == .listener
            ? connection.protocolObject
            : connection.protocolObject.cast(to: ProtocolObject.self).pointee.clientInfo
        guard let info else { return atoms.undefined }
        do throws(PythonError) {
            let named = try withPeerName(info, of: connection)
            var encoder = Encoder(env: env, state: state)
            return try encoder.term(named.pointer)
        } catch {
            PyErr_Clear()
            return atoms.undefined
        }
    }

    private func withPeerName(_ info: PyPointer, of connection: Connection) throws(PythonError) -> Object {
        guard connection.kind == .stream, cpython_is_dict(info) != 0, connection.isOpen,
            PyDict_GetItemString(info, "addr") == nil, let peer = SocketAddress.ofPeer(connection.fd)
        else { return Object(retaining: info) }
        let named = try Object(PyDict_New())
        try peer.describe(in: named.pointer)
        guard PyDict_Update(named.pointer, info) == 0 else { throw PythonError() }
        return named
    }

    func tidies(_ isTidying: Bool) { context.isTidying.store(isTidying, ordering: .relaxed) }

    func callbackIsOver() { context.endInterruption() }

    func pollerMade(_ descriptor: Int32) { context.pollerMade(descriptor) }

    // Its descriptor is closed by whoever lets go of it last: see PollerDescriptor.
    func pollerAbandoned(_ descriptor: Int32) { context.pollerAbandoned() }

    func drained() { tellOwner(atoms.drained) }

    /// Asks the owner to have the BEAM watch the connections.
    func askOwnerToWatch() { tellOwner(atoms.idle) }

    private func tellOwner(_ what: Term) {
        let message = Environment()
        send(to: context.owner, message, makeTuple(message.pointer, atoms.causeway, what))
    }
}
