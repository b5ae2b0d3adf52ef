import CPython
import Glibc
import Python
import Streams

/// The connections of protocols of `erlang.reactor` that an event loop serves: a reactor whose poller the loop's watches.
final class LoopReactor: ReactorHost {
    // It owns this.
    private unowned(unsafe) let core: LoopCore
    private let reactor: Reactor
    let inbox: ReactorInbox
    /// What is to end the loop.
    private var ending: Exception?

    init(_ core: LoopCore) {
        self.core = core
        inbox = ReactorInbox(doorbell: core.doorbell, maximumConnections: .max)
        reactor = Reactor(inbox: inbox, state: core.state)
        reactor.host = self
    }

    /// Whether there is anything to poll for.
    var isServing: Bool { reactor.isServing }

    /// Whether a turn has something to do. Without the GIL, on the loop's thread.
    var hasWork: Bool { !inbox.requests.isEmpty || reactor.hasWork }

    /// Whether it must be looked at again without being woken, and after how many nanoseconds.
    var mustLookAgain: Bool { reactor.isStarved }
    static let respite: Int64 = 5_000_000

    /// The objects of its connections, for the collector of cycles.
    func forEachObject(_ body: (PyPointer?) -> Void) { reactor.forEachObject(body) }

    /// Takes ownership of a descriptor where it does not throw. With the GIL.
    func serve(_ fd: Int32, info: PyPointer, factory: PyPointer) throws(PythonError) {
        do throws(Errno) {
            try inbox.prepare()
            let kind = try Descriptor.kind(of: fd)
            guard ServedDescriptors.shared.claim(fd) else { throw Errno(EEXIST) }
            _ = inbox.reserve()
            let handoff = Handoff(
                owning: fd, kind, info: Object(retaining: info), factory: Object(retaining: factory).take())
            if !inbox.submit(.open(handoff)) { reactor.discard(handoff) }
        } catch { throw osError(error.code) }
    }

    /// Reads what is ready. Without the GIL, after the loop has waited.
    func read() {
        guard reactor.isServing else { return }
        reactor.poll(milliseconds: 0)
        reactor.readReady()
    }

    /// Has protocols called. With the GIL, in a turn of the loop.
    func serve() throws(PythonError) {
        reactor.takeRequests()
        reactor.serveReady(hasOtherWork: { false }, yield: {})
        guard let ending = ending.take() else { return }
        ending.restore()
        throw PythonError()
    }

    /// Ends all connections. With the GIL.
    func end() {
        reactor.closeAll()
        reactor.abandonPoller()
        ending = nil
    }

    // MARK: ReactorHost

    /// Tells the loop's exception handler, unless it is to end the loop.
    func report(exceptionIn callback: StaticString, of connection: Connection?, isExpected: Bool) {
        let isEnd = core.isEnd
        guard let exception = Exception.take() else { return }
        if isEnd {
            if ending == nil { ending = consume exception }
            return
        }
        tellLoop("_report_protocol") { () throws(PythonError) in
            let arguments = try Object(PyTuple_New(4))
            PyTuple_SetItem(arguments.pointer, 0, Object(retaining: exception.value.pointer).take())
            PyTuple_SetItem(arguments.pointer, 1, try newString("\(callback)").take())
            PyTuple_SetItem(
                arguments.pointer, 2, Object(retaining: connection?.protocolObject ?? cpython_none()).take())
            PyTuple_SetItem(arguments.pointer, 3, newBool(isExpected))
            return arguments
        }
    }

    func report(_ text: String, of connection: Connection, isExpected: Bool) {
        tellLoop("_report_connection") { () throws(PythonError) in
            let arguments = try Object(PyTuple_New(3))
            PyTuple_SetItem(arguments.pointer, 0, try newString(text).take())
            PyTuple_SetItem(arguments.pointer, 1, Object(retaining: connection.protocolObject).take())
            PyTuple_SetItem(arguments.pointer, 2, newBool(isExpected))
            return arguments
        }
    }

    func ended(_ protocolObject: PyPointer) {
        tellLoop("_protocol_ended") { () throws(PythonError) in
            let arguments = try Object(PyTuple_New(1))
            PyTuple_SetItem(arguments.pointer, 0, Object(retaining: protocolObject).take())
            return arguments
        }
    }

    private func tellLoop(_ method: String, _ arguments: () throws(PythonError) -> Object) {
        guard let object = core.object else { return }
        do throws(PythonError) {
            _ = try callMethod(object, method, try arguments())
        } catch {
            let isEnd = core.isEnd
            guard let exception = Exception.take() else { return }
            if isEnd {
                if ending == nil { ending = consume exception }
                return
            }
            exception.restore()
            PyErr_WriteUnraisable(object)
        }
    }

    func tidies(_ isTidying: Bool) {}

    func callbackIsOver() {}

    func pollerMade(_ descriptor: Int32) { core.watchInner(descriptor) }

    func pollerAbandoned(_ descriptor: Int32) {
        core.unwatchInner(descriptor)
        _ = Glibc.close(descriptor)
    }

    func drained() {}
}

/// What `erlang.EventLoop` calls for protocols of `erlang.reactor`.
enum LoopReactorMethods {
    static var all: [PyMethodDef] {
        [
            method(
                "_serve_protocol",
                "_serve_protocol($self, fd, client_info, factory, /)\n--\n\nServe a descriptor, which is the loop's from then on, by the reactor protocol that the factory makes."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    let core = try LoopObject.open(me)
                    guard count == 3, let arguments, let info = arguments[1], let factory = arguments[2],
                        cpython_is_dict(info) != 0
                    else { throw typeError("_serve_protocol() takes a descriptor, a dict and a factory") }
                    try core.checkMayChange()
                    let fd = try LoopObject.descriptor(arguments[0])
                    do throws(Errno) { try core.makePoller() } catch { throw osError(error.code) }
                    let served = core.served ?? LoopReactor(core)
                    core.served = served
                    try served.serve(fd, info: info, factory: factory)
                    return newNone()
                }
            },
            method(
                "_end_protocol",
                "_end_protocol($self, protocol, is_patient, /)\n--\n\nClose the connection of a reactor protocol, where is_patient when it has written what is left."
            ) { me, arguments, count in
                returning { () throws(PythonError) in
                    let core = try LoopObject.core(me)
                    guard count == 2, let arguments, let receiver = arguments[0],
                        cpython_is_subtype_of(receiver, core.state.protocolType) != 0
                    else { throw typeError("_end_protocol() takes a protocol and a bool") }
                    let fields = receiver.cast(to: ProtocolObject.self).pointee
                    let token = Poller.Token(bits: fields.token)
                    guard let inbox = fields.inbox?.takeUnretainedValue() else { return newBool(false) }
                    let isPatient = arguments[1] == cpython_true()
                    return newBool(inbox.submit(isPatient ? .finish(token) : .close(token)))
                }
            },
            method(
                "_end_protocols",
                "_end_protocols($self, /)\n--\n\nClose the connections of reactor protocols."
            ) { me, _, _ in
                returning { () throws(PythonError) in
                    try LoopObject.core(me).endServed()
                    return newNone()
                }
            },
        ]
    }
}
