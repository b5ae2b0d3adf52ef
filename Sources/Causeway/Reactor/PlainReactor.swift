import Beam
import CPython
import Glibc
import Python
import Streams
import Synchronization

/// A reactor without a BEAM: `erlang.reactor.serve` and `run` in a plain python3. One for each interpreter; its
/// thread is the one that calls `run`.
final class PlainReactor: ReactorHost {
    private let reactor: Reactor
    private let inbox: ReactorInbox
    private let isStopped = Atomic<Bool>(false)
    private let isRunning = Atomic<Bool>(false)
    /// What ends `run`, which raises it when all is closed. Only for the thread of `run`.
    private var ending: Exception?

    init(_ state: ModuleState, maximumConnections: Int) {
        inbox = ReactorInbox(doorbell: Doorbell(), maximumConnections: maximumConnections)
        reactor = Reactor(inbox: inbox, state: state)
        reactor.host = self
    }

    /// Takes ownership of a descriptor where it does not throw. With the GIL, from any thread.
    func serve(_ fd: Int32, info: PyPointer, factory: PyPointer?) throws(PythonError) {
        let kind: Descriptor.Kind
        do throws(Errno) { kind = try Descriptor.kind(of: fd) } catch { throw osError(error.code) }
        guard kind != .file else { throw osError(EPERM) }
        guard kind == .listener || inbox.reserve() else {
            throw runtimeError("\(inbox.maximumConnections) connections are served already: max_connections")
        }
        guard ServedDescriptors.shared.claim(fd) else {
            if kind != .listener { inbox.giveUpPlace() }
            throw valueError("the file descriptor \(fd) is served already")
        }
        let handoff = Handoff(
            owning: fd, kind, info: Object(retaining: info),
            factory: factory.map { Object(retaining: $0).take() })
        if !inbox.submit(.open(handoff)) { reactor.discard(handoff) }
    }

    /// Makes the calling thread the one that runs it.
    func begin() throws(PythonError) {
        guard !isRunning.exchange(true, ordering: .sequentiallyConsistent) else {
            throw runtimeError("run() serves already, in this thread or another")
        }
    }

    /// Serves until `stop`, an exception that is to end the program (a signal's, or what a callback raises that is no
    /// `Exception`), or until nothing is left to serve. With the GIL, which it releases while it waits and reads.
    ///
    /// Signals are written to `signals`, as `signal.set_wakeup_fd` does it: the kernel may give them to another
    /// thread, which does not wake this one. -1 where this is not Python's main thread.
    func run(signals: Int32) throws(PythonError) {
        do throws(PythonError) { try serve(signals) } catch { keep(Exception.take()) }
        // Protocols are told of the end: meanwhile none is set.
        reactor.closeAll()
        reactor.abandonPoller()
        guard let ending = ending.take() else { return }
        ending.restore()
        throw PythonError()
    }

    private func serve(_ signals: Int32) throws(PythonError) {
        if signals >= 0 {
            do throws(Errno) { try reactor.wakeUp(by: signals) } catch { throw osError(error.code) }
        }
        while !isOver, reactor.isServing || !inbox.requests.isEmpty {
            let thread = PyEval_SaveThread()
            wait()
            reactor.readReady()
            PyEval_RestoreThread(thread)
            guard PyErr_CheckSignals() == 0 else { throw PythonError() }
            reactor.takeRequests()
            reactor.serveReady(hasOtherWork: { false }, yield: {})
        }
    }

    private var isOver: Bool { ending != nil || isStopped.load(ordering: .sequentiallyConsistent) }

    /// Has `run` end by this exception; where several want that, by the first.
    private func keep(_ exception: consuming Exception?) {
        guard ending == nil, let exception else { return }
        ending = consume exception
    }

    /// Makes `run` return. From any thread.
    func stop() {
        isStopped.store(true, ordering: .sequentiallyConsistent)
        inbox.doorbell.ring()
    }

    private func wait() {
        let bell = inbox.doorbell
        bell.willPoll()
        // Announced first, looked at afterwards: who submitted before saw us running and did not ring.
        let isIdle =
            inbox.requests.isEmpty && !reactor.hasWork && !isStopped.load(ordering: .sequentiallyConsistent)
        reactor.poll(milliseconds: isIdle ? -1 : 0)
        bell.didWake()
    }

    // MARK: ReactorHost

    /// Logs it, by the module `logging`.
    func report(exceptionIn callback: StaticString, of connection: Connection?, isExpected: Bool) {
        guard let exception = Exception.take() else { return }
        if !exception.isOrdinary { return keep(consume exception) }
        do throws(PythonError) {
            let module = try Object(PyImport_ImportModule("erlang._serving"))
            let function = try Object(PyObject_GetAttrString(module.pointer, "report"))
            let arguments = try Object(PyTuple_New(4))
            PyTuple_SetItem(arguments.pointer, 0, Object(retaining: exception.value.pointer).take())
            PyTuple_SetItem(arguments.pointer, 1, try newString("\(callback)").take())
            PyTuple_SetItem(
                arguments.pointer, 2, Object(retaining: connection?.protocolObject ?? cpython_none()).take())
            PyTuple_SetItem(arguments.pointer, 3, newBool(isExpected))
            _ = try Object(PyObject_Call(function.pointer, arguments.pointer, nil))
        } catch {
            unreported(of: connection?.protocolObject)
        }
    }

    func report(_ text: String, of connection: Connection, isExpected: Bool) {
        do throws(PythonError) {
            let module = try Object(PyImport_ImportModule("erlang._serving"))
            let function = try Object(PyObject_GetAttrString(module.pointer, "report_text"))
            let arguments = try Object(PyTuple_New(3))
            PyTuple_SetItem(arguments.pointer, 0, try newString(text).take())
            PyTuple_SetItem(arguments.pointer, 1, try Object(PyLong_FromLong(Int(connection.fd))).take())
            PyTuple_SetItem(arguments.pointer, 2, newBool(isExpected))
            _ = try Object(PyObject_Call(function.pointer, arguments.pointer, nil))
        } catch {
            unreported(of: nil)
        }
    }

    /// What was raised instead of being logged, perhaps by a signal.
    private func unreported(of object: PyPointer?) {
        guard let exception = Exception.take() else { return }
        if !exception.isOrdinary { return keep(consume exception) }
        exception.restore()
        PyErr_WriteUnraisable(object)
    }

    func tidies(_ isTidying: Bool) {}

    func callbackIsOver() {}

    func pollerMade(_ descriptor: Int32) {}

    func pollerAbandoned(_ descriptor: Int32) { _ = Glibc.close(descriptor) }

    func drained() {}
}

/// What `erlang._serving` is made of.
enum PlainReactorModule {
    static var functions: [PyMethodDef] {
        [
            method(
                "_serve",
                "_serve($module, fd, client_info, factory, max_connections, /)\n--\n\nHave _run() serve a descriptor, which is its own from then on."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    guard count == 4, let arguments, let number = arguments[0], let info = arguments[1],
                        let factory = arguments[2], let maximum = arguments[3]
                    else { throw typeError("_serve() takes four arguments") }
                    let state = try PlainReactorModule.state(module)
                    let fd = PyLong_AsLong(number)
                    let limit = PyLong_AsLong(maximum)
                    if PyErr_Occurred() != nil { throw PythonError() }
                    guard let descriptor = Int32(exactly: fd), descriptor >= 0 else {
                        throw valueError("\(fd) is no file descriptor")
                    }
                    guard cpython_is_dict(info) != 0 else { throw typeError("client_info must be a dict") }
                    let reactor = state.plainReactor ?? PlainReactor(state, maximumConnections: limit)
                    state.plainReactor = reactor
                    try reactor.serve(
                        descriptor, info: info, factory: factory == cpython_none() ? nil : factory)
                    return newNone()
                }
            },
            method(
                "_run",
                "_run($module, signals, /)\n--\n\nServe until _stop(), or until nothing is left. Signals are written to that descriptor."
            ) { module, arguments, count in
                returning { () throws(PythonError) in
                    let state = try PlainReactorModule.state(module)
                    guard count == 1, let argument = arguments?[0] else {
                        throw typeError("_run() takes a file descriptor")
                    }
                    let signals = PyLong_AsLong(argument)
                    if signals == -1, PyErr_Occurred() != nil { throw PythonError() }
                    guard let reactor = state.plainReactor else { return newNone() }
                    try reactor.begin()
                    // The next serve() is for another run().
                    defer { if state.plainReactor === reactor { state.plainReactor = nil } }
                    try reactor.run(signals: Int32(clamping: signals))
                    return newNone()
                }
            },
            method("_stop", "_stop($module, /)\n--\n\nMake _run() return. From any thread.") { module, _, _ in
                returning { () throws(PythonError) in
                    try PlainReactorModule.state(module).plainReactor?.stop()
                    return newNone()
                }
            },
        ]
    }

    private static func state(_ module: PyPointer?) throws(PythonError) -> ModuleState {
        guard !hostIsBeam else {
            throw runtimeError("inside the BEAM contexts serve: py_reactor_context:handoff/3 in Erlang")
        }
        return try ModuleState.required(module)
    }
}
