import Beam
import Python
import Streams

/// The native thread of a context: it waits in one place for calls and connections, takes the GIL once
/// for a batch of both, and ends when the context does.
final class ContextThread {
    /// How many calls one turn serves before connections are looked at again.
    private static let callsPerTurn = 64

    private let context: Context
    private let threadState: ThreadState
    private let state: ModuleState
    private let runner: CallRunner
    private let reactor: Reactor
    private var spin = Spin()

    /// Starts the thread. Its owner is told `{causeway, started}`, at the end `{causeway, stopped}`.
    static func start(_ context: Context) throws(Errno) {
        try NativeThread.start(name: "causeway-ctx", stackSize: pythonStackSize) {
            ContextThread.main(context)
        }
    }

    private static func main(_ context: Context) {
        CurrentContext.set(context)
        let messages = Environment()
        if let thread = ContextThread(context) {
            ContextRegistry.shared.add(context)
            send(to: context.owner, messages, makeTuple(messages.pointer, atoms.causeway, atoms.started))
            thread.run()
            thread.finish()
            ContextRegistry.shared.remove(context)
        } else {
            let reason = makeTuple(
                messages.pointer, atoms.startFailed,
                makeBinary(messages.pointer, "no thread state for Python"))
            send(to: context.owner, messages, makeTuple(messages.pointer, atoms.causeway, reason))
        }
        context.threadEnded()
        send(to: context.owner, messages, makeTuple(messages.pointer, atoms.causeway, atoms.stopped))
    }

    /// On the new thread, without the GIL.
    private init?(_ context: Context) {
        guard let interpreter = PythonHost.shared.interpreter, let state = PythonHost.shared.state,
            let threadState = ThreadState(interpreter: interpreter)
        else { return nil }
        self.context = context
        self.threadState = threadState
        self.state = state
        context.threadIdentifier.store(threadState.identifier, ordering: .sequentiallyConsistent)
        runner = CallRunner(context: context, state: state)
        reactor = Reactor(context: context, state: state)
    }

    private func run() {
        while !context.isEnding {
            waitForWork()
            reactor.readReady()
            guard reactor.hasWork || !context.isQuiet || !state.leftovers.isEmpty else { continue }
            threadState.enter()
            turn()
            threadState.leave()
        }
    }

    /// One hold of the GIL.
    private func turn() {
        count(context.statistics.batches)
        state.leftovers.giveBack(state.namespaces)
        reactor.takeRequests()
        reactor.serveReady { runCalls() }
        runCalls()
    }

    private func runCalls() {
        var left = ContextThread.callsPerTurn
        var next = context.calls.takeFirst()
        while let call = next {
            runner.run(call)
            left -= 1
            next = context.calls.finish(takingNext: left > 0)
        }
    }

    // MARK: Waiting

    /// Waits until there is something to do, in the way that costs least: see `Doorbell`.
    private func waitForWork() {
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
        let events = reactor.poll(milliseconds: context.options.linger)
        bell.didWake()
        if events == 0, !hasWork { park(asking: true) }
    }

    private var hasWork: Bool { !context.isQuiet || !state.leftovers.isEmpty || context.isEnding }

    /// Sleeps until somebody rings. With connections the owner is asked to have the BEAM watch them.
    private func park(asking: Bool) {
        let bell = context.doorbell
        bell.willPark()
        // Announced first, looked at afterwards: who pushed before saw us running and did not ring.
        if hasWork { return bell.didWake() }
        if asking, !context.isWatched { reactor.askOwnerToWatch() }
        count(context.statistics.parks)
        bell.park()
    }

    // MARK: The end

    private func finish() {
        threadState.enter()
        reactor.closeAll()
        state.leftovers.giveBack(state.namespaces)
        threadState.leave()
        reactor.abandonPoller()
        threadState.end()
    }
}

/// The stack of every native thread that runs Python: deep recursion needs what the main thread of a
/// process usually has, and more.
let pythonStackSize = 16 << 20
