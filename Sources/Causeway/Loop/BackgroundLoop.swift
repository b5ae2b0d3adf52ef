import CErlNif
import CPython
import Python
import Streams

/// The event loop of a context for the tasks that Erlang starts: it goes on whenever the context's thread has nothing
/// else to do, between calls and while calls wait.
final class BackgroundLoop {
    let core: LoopCore
    /// The `erlang.EventLoop`, with a reference that is this object's.
    let object: PyPointer
    /// The tasks that will answer calls, by those.
    var tasks: [ObjectIdentifier: PyPointer] = [:]
    /// When it has to go on, on the monotonic clock: 0 is at once. As it was at the end of its last turn.
    private var due = Int64.max
    /// It watches descriptors.
    private var isWatching = false

    /// The method of the loop, bound.
    private let createTask: PyPointer

    init(_ object: consuming Object, _ core: LoopCore) throws(PythonError) {
        createTask = try Object(PyObject_GetAttr(object.pointer, core.state.loopNames.createTask)).take()
        self.core = core
        self.object = object.take()
    }

    /// Lets go of the loop.
    func free() {
        for task in tasks.values { Py_DecRef(task) }
        tasks = [:]
        Py_DecRef(createTask)
        Py_DecRef(object)
    }

    /// Begins a task of an owner.
    func start(_ awaitable: PyPointer, for owner: PyPointer) throws(PythonError) -> Object {
        defer { look() }
        let state = core.state
        guard cpython_type(awaitable) == state.coroutineType else {
            return try state.callTasks("ensure_future", [awaitable, object])
        }
        let context = try Object(cpython_context_with(state.taskOwnerVariable, owner))
        return try state.createTask(createTask, awaitable, context.pointer)
    }

    /// Whether there is something to do. Also without the GIL, on the context's thread.
    var hasWork: Bool {
        // A turn of it is below this one.
        if core.isInTurn { return false }
        if core.isAwaited || core.hasEvents { return true }
        return due <= (due == .max || due == 0 ? 0 : monotonicNanoseconds())
    }

    /// Whether a wait must be one in its poller.
    var mustBePolled: Bool { !core.isInTurn && (isWatching || due != .max || core.hasFlights) }

    /// A limit for a wait, by when it has to go on.
    func shortened(_ nanoseconds: Int64) -> Int64 {
        if due == .max { return nanoseconds }
        let left = max(0, due - monotonicNanoseconds())
        return nanoseconds < 0 ? left : min(nanoseconds, left)
    }

    /// Remembers what is to be known without the GIL.
    func look() {
        let pause = core.pause
        due = pause < 0 ? .max : pause == 0 ? 0 : monotonicNanoseconds() + pause
        isWatching = core.watches.count > 0 || core.served?.isServing ?? false
        core.takeOff()
    }
}

extension ContextThread {
    /// The event loop of this context for tasks, which is made when it is first needed. With the GIL.
    func backgroundLoop() throws(PythonError) -> BackgroundLoop {
        if let background { return background }
        let object = try state.callTasks("background_loop", [])
        let core = try LoopObject.core(object.pointer)
        try core.bind()
        core.isBackground = true
        let made = try BackgroundLoop(object, core)
        background = made
        return made
    }

    /// Waits in the poller of the background loop, which the reactor's is watched by. Without the GIL.
    func wait(in background: BackgroundLoop) {
        let core = background.core
        if let reactorPoller = reactor.poller?.descriptor { core.watchInner(reactorPoller) }
        var nanoseconds = background.shortened(-1)
        if hasWork { nanoseconds = 0 }
        if nanoseconds != 0 {
            context.doorbell.willPoll()
            if hasWork { nanoseconds = 0 }
        }
        if reactor.isStarved { nanoseconds = nanoseconds < 0 ? 5_000_000 : min(nanoseconds, 5_000_000) }
        core.poll(nanoseconds)
        if reactor.isServing { reactor.poll(milliseconds: 0) }
    }

    /// Whether tasks were given up that can be told so: not while one of them waits below, which is to be interrupted.
    var mayCancelTasks: Bool {
        !context.cancelledTasks.isEmpty && background.map { !$0.core.isInTurn } ?? false
    }

    /// Lets the tasks go on, and cancels those that were given up. With the GIL.
    func serveTasks() {
        guard let background, !background.core.isInTurn else { return }
        while let call = context.cancelledTasks.popFirst() { cancelTask(of: call, background) }
        background.look()
        if background.hasWork { turn(of: background) }
    }

    private func cancelTask(of call: Call, _ background: BackgroundLoop) {
        guard let task = background.tasks[ObjectIdentifier(call)] else { return }
        let held = Object(retaining: task)
        let answer = cpython_call_method0(held.pointer, state.loopNames.cancel)
        if answer == nil { PyErr_Clear() }
        Py_DecRef(answer)
    }

    private func turn(of background: BackgroundLoop) {
        state.running(background.object) {
            context.asCallback {
                do throws(PythonError) {
                    try background.core.land()
                    try background.core.serveInBackground()
                } catch { reportEnd(of: background) }
            }
        }
        background.look()
    }

    /// What would end a loop that a call runs ends none that nobody has run: it is reported, and the others go on.
    private func reportEnd(of background: BackgroundLoop) {
        guard let exception = Exception.take() else { return }
        if PyErr_GivenExceptionMatches(exception.value.pointer, state.interruption) != 0 { return }
        let answer = try? state.callTasks("report_end", [background.object, exception.value.pointer])
        if answer == nil { PyErr_Clear() }
    }

    /// A task has ended, and answers its call. With the GIL.
    func answer(_ call: Call, by task: PyPointer, isSmall: Bool, hasPrinted: Bool) {
        let held = background?.tasks.removeValue(forKey: ObjectIdentifier(call))
        taskRunner.answer(call, by: task, isSmall: isSmall, hasPrinted: hasPrinted)
        Py_DecRef(held)
    }

    /// The context ends: tasks are cancelled, and have some time to tidy up.
    func endTasks() {
        Py_DecRef(loopFactory)
        loopFactory = nil
        guard let background else { return }
        isEndingTasks = true
        context.isTidying.store(true, ordering: .relaxed)
        context.asCallback {
            let answer = try? state.callTasks("end", [background.object])
            if answer == nil { PyErr_Clear() }
        }
        context.isTidying.store(false, ordering: .relaxed)
        isEndingTasks = false
        self.background = nil
        // Whoever still has the loop is not to reach this thread by it.
        background.core.close()
        background.core.isBackground = false
        background.core.thread = nil
        background.free()
    }
}

extension ModuleState {
    /// Calls a function of `erlang._tasks`.
    func callTasks(_ name: String, _ arguments: [PyPointer]) throws(PythonError) -> Object {
        let module = try Object(PyImport_ImportModule("erlang._tasks"))
        let tuple = try Object(PyTuple_New(arguments.count))
        for (index, argument) in arguments.enumerated() {
            PyTuple_SetItem(tuple.pointer, index, Py_NewRef(argument))
        }
        return try callMethod(module.pointer, name, tuple)
    }

    /// What can be awaited, of a value; nil where it is none.
    func awaitable(_ value: PyPointer) throws(PythonError) -> Object? {
        if cpython_exact_kind(value) != CPYTHON_OTHER || value == cpython_none() { return nil }
        if cpython_type(value) == coroutineType { return Object(retaining: value) }
        guard let method = PyObject_GetAttr(value, loopNames.awaiting) else {
            PyErr_Clear()
            return nil
        }
        Py_DecRef(method)
        return Object(retaining: value)
    }

    /// Runs a turn of a loop as `asyncio` has it: `get_running_loop()` is that loop.
    func running(_ loop: PyPointer, _ body: () -> Void) {
        guard let runningLoop else { return body() }
        let before = PyObject_CallNoArgs(runningLoop.get)
        if before == nil { PyErr_Clear() }
        setRunningLoop(runningLoop, loop)
        body()
        setRunningLoop(runningLoop, before ?? cpython_none())
        Py_DecRef(before)
    }
}
