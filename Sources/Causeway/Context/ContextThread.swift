import Beam
import CPython
import Glibc
import Python
import Streams

/// The native thread of a context: it waits in one place for calls and connections, takes the GIL once
/// for a batch of both, and ends when the context does.
///
/// While Python waits for an Erlang function on this thread, the thread goes on serving on top of that
/// (`wait(for:)`): the function may need this very context.
final class ContextThread {
    /// How many calls one turn serves before connections are looked at again.
    private static let callsPerTurn = 64

    let context: Context
    private let interpreter: Interpreter
    private let threadState: ThreadState
    let state: ModuleState
    let reactor: Reactor
    private var spin = Spin()
    /// When the thread took the GIL last, on the monotonic clock.
    private var enteredAt: Int64 = 0
    /// A runner for each level of calls: the first for calls on their own, the next for calls that are served
    /// while one waits for Erlang, and so on. Each has an environment for answers.
    private var runners: [CallRunner]
    private var level = 0
    /// Answers what tasks come to.
    let taskRunner: CallRunner
    /// It runs what its context was told to run first.
    var isInSetup = false
    /// The event loop of what Erlang has started, from the first task on.
    var background: BackgroundLoop?
    /// What has made a protocol of asyncio last for a connection of the reactor, with a reference that is the thread's.
    var loopFactory: PyPointer?
    /// It ends, and its tasks are told so.
    var isEndingTasks = false
    /// Programs that event loops have started on this thread.
    var programs: [ObjectIdentifier: GuardedProgram] = [:]
    /// What Python waits for on this thread, the innermost where there are several.
    private var awaited: Callback?
    /// How deep calls may be nested: each level takes up to some 10 KB of the thread's stack.
    private static let maximumLevel = 500

    /// Starts the thread. Its owner is told `{causeway, started}`, at the end `{causeway, stopped}`.
    static func start(_ context: Context) throws(Errno) {
        try NativeThread.start(name: "causeway-ctx", stackSize: pythonStackSize) {
            ContextThread.main(context)
        }
    }

    private static func main(_ context: Context) {
        let messages = Environment()
        do throws(Interpreter.Failure) {
            let thread = try ContextThread(context)
            pthread_setspecific(ContextThread.key, Unmanaged.passUnretained(thread).toOpaque())
            thread.enterRegistries()
            send(to: context.owner, messages, makeTuple(messages.pointer, atoms.causeway, atoms.started))
            thread.run()
            thread.finish()
        } catch {
            let reason = makeTuple(
                messages.pointer, atoms.startFailed, makeBinary(messages.pointer, error.text))
            send(to: context.owner, messages, makeTuple(messages.pointer, atoms.causeway, reason))
        }
        context.threadEnded()
        send(to: context.owner, messages, makeTuple(messages.pointer, atoms.causeway, atoms.stopped))
    }

    /// On the new thread, without the GIL.
    private init(_ context: Context) throws(Interpreter.Failure) {
        interpreter = try Interpreter.take(context.options.mode)
        guard let threadState = interpreter.makeThreadState() else {
            throw Interpreter.Failure(text: "no thread state for Python")
        }
        self.context = context
        self.threadState = threadState
        state = interpreter.state
        context.begin(in: interpreter)
        context.threadState.store(threadState.address, ordering: .sequentiallyConsistent)
        runners = [CallRunner(context: context, state: state)]
        taskRunner = CallRunner(context: context, state: state)
        reactor = Reactor(inbox: context.reactor, state: state)
        reactor.host = self
    }

    private func enterRegistries() {
        ContextRegistry.shared.add(context)
        state.contexts.add(context)
    }

    private func run() {
        while !context.isEnding {
            waitForWork()
            reactor.readReady()
            guard hasWork else { continue }
            enter()
            context.busySince.store(enteredAt, ordering: .relaxed)
            turn()
            leave()
        }
    }

    /// Takes the GIL.
    func enter() {
        if Pacemaker.isNeeded.load(ordering: .relaxed) {
            context.isAtWork.store(true, ordering: .sequentiallyConsistent)
            Pacemaker.shared.wake()
        }
        let before = monotonicNanoseconds()
        threadState.enter()
        enteredAt = monotonicNanoseconds()
        count(context.statistics.lockWait, Int(enteredAt - before))
    }

    /// Releases the GIL.
    func leave() {
        threadState.leave()
        count(context.statistics.lockHold, Int(monotonicNanoseconds() - enteredAt))
        context.isAtWork.store(false, ordering: .relaxed)
    }

    /// One hold of the GIL.
    private func turn() {
        count(context.statistics.batches)
        if !state.leftovers.isEmpty || !context.reactor.requests.isEmpty {
            // Finalizers, factories and other methods of protocols: code that can be interrupted as well.
            context.asCallback {
                state.leftovers.giveBack(state.namespaces)
                reactor.takeRequests()
            }
        }
        reactor.serveReady(hasOtherWork: { !context.calls.isEmpty }, yield: { runCalls() })
        runCalls()
        if background != nil { serveTasks() }
        context.outlet.flush(context)
    }

    private func runCalls() {
        var left = ContextThread.callsPerTurn
        var next = context.calls.takeFirst()
        while let call = next {
            runners[level].run(call)
            left -= 1
            next = context.calls.finish(takingNext: left > 0)
        }
    }

    // MARK: Serving while Python waits

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        pthread_key_create(&key, nil)
        return key
    }()

    /// The context's thread that calls this; nil on any other thread.
    static var current: ContextThread? {
        pthread_getspecific(key).map { Unmanaged<ContextThread>.fromOpaque($0).takeUnretainedValue() }
    }

    /// Whether this is the state of the interpreter that the thread runs.
    func runs(_ state: ModuleState) -> Bool { self.state === state }

    /// Throws where a wait would end at once: calls are nested too deep, what runs is interrupted, or the context
    /// stops. With the GIL, on this thread.
    func checkMayWait() throws(PythonError) {
        guard level < ContextThread.maximumLevel else {
            throw raised(
                cpython_RecursionError(),
                "maximum depth exceeded: \(level) calls of Erlang functions wait for each other on this context"
            )
        }
        context.dropHandledInterruption(state)
        if isInterrupted { throw interruption() }
    }

    /// Serves calls and connections until a callback is over. With the GIL, on this thread, after `checkMayWait`.
    ///
    /// Throws where the call that waits is interrupted, or the context stops.
    func wait(for callback: Callback) throws(PythonError) {
        let outer = awaited
        awaited = callback
        level += 1
        if level == runners.count { runners.append(CallRunner(context: context, state: state)) }
        context.isBusy.store(false, ordering: .relaxed)
        defer {
            level -= 1
            awaited = outer
            context.isBusy.store(true, ordering: .relaxed)
        }
        while true {
            if isInterrupted { throw interruption() }
            guard callback.outcome == nil else { return }
            leave()
            waitForWork()
            reactor.readReady()
            enter()
            // The call that waits would be hit by an interruption that is meant for one on top.
            guard !isInterrupted, callback.outcome == nil else { continue }
            state.withoutRunningLoop { turnOnTop() }
        }
    }

    /// An event loop that a call runs is about to wait: returns what `resume` wants back.
    func suspend() -> Callback? {
        let outer = awaited
        awaited = nil
        context.isBusy.store(false, ordering: .relaxed)
        return outer
    }

    /// The loop goes on.
    func resume(_ outer: Callback?) {
        awaited = outer
        context.isBusy.store(context.current != nil, ordering: .relaxed)
    }

    /// A turn on top of a loop that waits.
    func serveOnTop() {
        level += 1
        defer { level -= 1 }
        if level == runners.count { runners.append(CallRunner(context: context, state: state)) }
        state.withoutRunningLoop { turnOnTop() }
    }

    /// A turn while a call waits, of which what is served must know nothing: neither whose it is, nor what
    /// exception it handles, nor that it was given up.
    private func turnOnTop() {
        let activity = context.activity
        let call = context.current
        context.activity = 0
        context.current = nil
        let start = context.busySince.exchange(monotonicNanoseconds(), ordering: .relaxed)
        withoutHandledException { turn() }
        context.busySince.store(start, ordering: .relaxed)
        context.current = call
        context.activity = activity
    }

    /// Whether what waits here for Erlang is to be ended.
    var isInterrupted: Bool {
        context.isEnding && !isEndingTasks || context.isInterrupted.load(ordering: .relaxed) || isToBeGivenUp
    }

    /// The call that waits was given up, and has not been told yet: once is enough, so that it can call Erlang while it
    /// tidies up.
    private var isToBeGivenUp: Bool {
        guard let call = context.current?.takeUnretainedValue(), call.isCancelled else { return false }
        return context.raised.load(ordering: .relaxed) != call.number
    }

    /// Raises what interrupts a wait.
    func interruption() -> PythonError {
        if isToBeGivenUp, let call = context.current?.takeUnretainedValue() {
            context.raised.store(call.number, ordering: .relaxed)
        }
        context.dropInterruption()
        PyErr_SetObject(state.interruption, nil)
        return PythonError()
    }

    /// Whether others wait for a loop that runs on this thread, or may.
    var hasOtherWork: Bool {
        !context.calls.isEmpty || reactor.isServing || context.isEnding && !isEndingTasks
    }

    // MARK: Waiting

    /// Waits until there is something to do, in the way that costs least: see `Doorbell`.
    private func waitForWork() {
        if let background, background.mustBePolled { return wait(in: background) }
        guard reactor.isServing else {
            if spin.wait(until: { hasWork }) { return }
            park(asking: false)
            return spin.woken()
        }
        if hasWork {
            reactor.poll(milliseconds: 0)
            return
        }
        let bell = context.doorbell
        bell.willPoll()
        if hasWork {
            bell.didWake()
            reactor.poll(milliseconds: 0)
            return
        }
        let events = reactor.poll(milliseconds: waitsByItself ? -1 : context.options.linger)
        bell.didWake()
        if events == 0, !hasWork { park(asking: true) }
    }

    /// Whether it has to look again after a while, or the BEAM cannot watch its connections: it does not park then,
    /// however short it lingers.
    private var waitsByItself: Bool { reactor.isStarved || context.isUnwatchable }

    var hasWork: Bool {
        if !context.isQuiet || !state.leftovers.isEmpty || context.isEnding || reactor.hasWork { return true }
        if let background, background.hasWork || mayCancelTasks { return true }
        guard let awaited else { return false }
        return awaited.outcome != nil || isInterrupted
    }

    /// Sleeps until somebody rings. With connections the owner is asked to have the BEAM watch them.
    private func park(asking: Bool) {
        let bell = context.doorbell
        bell.willPark()
        if asking, waitsByItself { return bell.didWake() }
        // Announced first, looked at afterwards: who pushed before saw us running and did not ring.
        if hasWork { return bell.didWake() }
        if asking, !context.isWatched { askOwnerToWatch() }
        count(context.statistics.parks)
        bell.park()
    }

    // MARK: The end

    private func finish() {
        enter()
        endTasks()
        // Those of loops that nobody has closed.
        for program in programs.values { program.close() }
        reactor.closeAll()
        // From here on the janitor gives back what is left of an interpreter without contexts.
        state.contexts.remove(context)
        let isReset = interpreter.reset(after: context)
        context.threadState.store(0, ordering: .sequentiallyConsistent)
        leave()
        ContextRegistry.shared.remove(context)
        reactor.abandonPoller()
        // It may hold objects, too: only then the interpreter is another context's.
        threadState.end()
        if isReset { interpreter.giveBack() }
    }
}

/// The stack of every native thread that runs Python: deep recursion needs what the main thread of a
/// process usually has, and more.
let pythonStackSize = 16 << 20
