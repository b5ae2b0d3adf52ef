import Beam
import CErlNif
import CPython
import Glibc
import Python
import Streams
import Synchronization

/// One Python context as everybody but its thread sees it: where requests are put, and how it stands.
///
/// It belongs to an Erlang process. When that ends, so does the context.
final class Context: Resource, @unchecked Sendable {
    /// What a context is started with.
    struct Options: Sendable {
        var maximumConnections = 10_000
        /// How long the thread polls by itself after the last event, in milliseconds; -1 is for ever.
        var linger: Int32 = 5
        /// How many calls may wait.
        var maximumQueue = 65_536
        var mode = ContextMode.worker
    }

    let identifier: Int
    let owner: ErlNifPid
    let options: Options
    let calls: Mailbox<Call>
    let doorbell = Doorbell()
    /// The reactor of its thread.
    let reactor: ReactorInbox
    /// What the thread waits on in `time.sleep` and the like: see `Sleep`.
    let sleep = FutexWord(0)
    let statistics = Statistics()
    /// When the call that is executed began, or the turn whose callback is executed, on the monotonic clock.
    let busySince = Atomic<Int64>(0)
    /// An interruption was set that may not have been raised yet. Changed only with the GIL.
    let isInterrupted = Atomic<Bool>(false)
    /// The number of the call that was interrupted last because it was given up: once is enough. Changed only with
    /// the GIL.
    let raised = Atomic<UInt64>(0)
    /// `threading.get_ident()` of the thread; 0 before it runs.
    let threadIdentifier = Atomic<UInt>(0)
    /// Its Python thread state, for who has the GIL; 0 when it has none.
    let threadState = Atomic<UInt>(0)

    /// Whether something was interrupted since imports were repaired. Only for the thread.
    private var hasInterrupted = false

    /// Whether the thread frees what the context leaves behind.
    let isTidying = Atomic<Bool>(false)
    /// Whether the thread has the GIL or waits for it. Only kept where the pacemaker needs it.
    let isAtWork = Atomic<Bool>(false)

    /// Whether a call is being run whose answer is not sent yet. Only a hint, for who chooses a context.
    let isBusy = Atomic<Bool>(false)

    /// The innermost call that the thread runs, kept by who runs it. Only for that thread.
    var current: Unmanaged<Call>?
    /// The process on whose behalf the thread runs: that of a call, of a task, or else the owner. With the GIL.
    var beneficiary: ErlNifPid {
        caller ?? owner
    }

    /// The same where it is no call's or task's: nil.
    var caller: ErlNifPid? {
        if let call = current?.takeUnretainedValue() { return call.beneficiary }
        return taskOwner?.pointer.cast(to: TaskOwnerObject.self).pointee.process
    }

    /// The owner of the task that the thread runs, where it runs no call. With the GIL, on the thread.
    var taskOwner: Object? {
        guard hasTasks, current == nil, let state = interpreter?.state else { return nil }
        return state.taskOwner
    }

    /// Some were started. Only for the thread.
    var hasTasks = false
    /// In which of Python's contexts (`contextvars`) the loop of tasks calls something just now; nil where it does not.
    /// With a reference that is the loop's. With the GIL.
    var callee: PyPointer?
    /// What Python prints on the thread. Only for that thread.
    let outlet = Outlet()

    /// The calls that tasks of the event loop will answer.
    private let tasks = Mutex<[ObjectIdentifier: Call]>([:])
    /// Those of them that were given up.
    let cancelledTasks = Mailbox<Call>(limit: .max)

    private let serving = Mutex<Interpreter?>(nil)
    private let closing = Atomic<Bool>(false)
    private let ending = Atomic<Bool>(false)
    private let ended = Atomic<Bool>(false)
    private let watched = Atomic<Bool>(false)
    private let unwatchable = Atomic<Bool>(false)
    private let poller = PollerDescriptor()

    init(identifier: Int, owner: ErlNifPid, options: Options) {
        self.identifier = identifier
        self.owner = owner
        self.options = options
        calls = Mailbox(limit: options.maximumQueue)
        reactor = ReactorInbox(doorbell: doorbell, maximumConnections: options.maximumConnections)
    }

    private var lastCall: UInt64 = 0

    /// A number for the next call. On the context's thread.
    func nextCall() -> UInt64 {
        lastCall += 1
        return lastCall
    }

    /// The interpreter that the thread runs; nil before it does.
    var interpreter: Interpreter? { serving.withLock { $0 } }

    /// The thread has its interpreter.
    func begin(in interpreter: Interpreter) {
        threadIdentifier.store(PyThread_get_thread_ident(), ordering: .sequentiallyConsistent)
        serving.withLock { $0 = interpreter }
    }

    /// Runs code that belongs to no call under a number by which the janitor knows what it would interrupt. With
    /// the GIL, on the context's thread.
    @inline(__always)
    func asCallback(_ body: () -> Void) {
        let outer = activity
        activity = ReactorInbox.nextCallback()
        defer {
            activity = outer
            endInterruption()
        }
        body()
    }

    /// Whether the thread is to stop.
    var isEnding: Bool { ending.load(ordering: .sequentiallyConsistent) }

    /// Whether the thread has stopped.
    var hasEnded: Bool { ended.load(ordering: .sequentiallyConsistent) }

    /// The thread has stopped.
    func threadEnded() {
        ended.store(true, ordering: .sequentiallyConsistent)
        // Tasks that have resisted their end, or had no time for it, answer nothing any more. Their calls refer to this.
        let left = tasks.withLock { tasks in
            defer { tasks = [:] }
            return tasks
        }
        _ = (left, cancelledTasks.close())
    }

    /// Whether the thread has nothing to do, but perhaps for the loop of tasks.
    var isQuiet: Bool { calls.isEmpty && reactor.requests.isEmpty }

    /// How many calls are queued or running.
    var load: Int { calls.count + (isBusy.load(ordering: .relaxed) ? 1 : 0) }

    /// For how many milliseconds it has run one call: as a rule of thumb it will take as long again.
    func heldUp(at now: Int64) -> Int {
        guard isBusy.load(ordering: .relaxed) else { return 0 }
        let since = busySince.load(ordering: .relaxed)
        // 0 when the call has ended in between.
        return since == 0 ? 0 : Int(max(0, now - since) / 1_000_000)
    }

    /// Whether the last call whose caller had to be sent a message was quick: see `Call.look`.
    let isQuick = Atomic<Bool>(false)

    /// A caller had to be sent a message after a call that has taken so many nanoseconds.
    func learn(_ nanoseconds: Int64) { isQuick.store(nanoseconds < Call.quick, ordering: .relaxed) }

    /// How many calls have been given up in the queue since somebody has looked for such there.
    private let abandoned = Atomic<Int>(0)

    /// A call that waits in the queue was given up.
    func abandon() { count(abandoned) }

    /// Queues a call and wakes the thread.
    func submit(_ call: Call) -> Mailbox<Call>.Outcome {
        var outcome = calls.push(call)
        // Calls that nobody waits for make room, a good part of the queue at a time: a look at all of it for every
        // one would take long.
        if outcome == .full, abandoned.load(ordering: .relaxed) > calls.limit / 16 {
            abandoned.store(0, ordering: .relaxed)
            _ = calls.remove { $0.isOver }
            outcome = calls.push(call)
        }
        switch outcome {
        case .queued:
            doorbell.ring()
            Timekeeper.shared.expect(call.deadline)
        case .full: count(statistics.refused)
        case .closed: break
        }
        return outcome
    }

    /// The calls that should be over by now, and the earliest deadline of the others.
    func overdue(at now: Int64) -> (calls: [Call], next: Int64) {
        var overdue: [Call] = []
        var next = Int64.max
        func look(at call: Call) {
            guard call.deadline != .max, !call.isOver else { return }
            if call.deadline <= now { overdue.append(call) } else { next = min(next, call.deadline) }
        }
        calls.forEach(look)
        tasks.withLock { for call in $0.values { look(at: call) } }
        return (overdue, next)
    }

    /// A task of the event loop will answer the call.
    func begin(taskOf call: Call) {
        tasks.withLock { $0[ObjectIdentifier(call)] = call }
        call.isTask.store(true, ordering: .sequentiallyConsistent)
        // It may have been given up before somebody could know that.
        if call.isCancelled { cancelTask(of: call) }
    }

    /// It has, or was cancelled.
    func end(taskOf call: Call) { _ = tasks.withLock { $0.removeValue(forKey: ObjectIdentifier(call)) } }

    /// Has the thread cancel the task of a call that was given up. A task that does not come to where it would be told
    /// is interrupted.
    func cancelTask(of call: Call) {
        guard cancelledTasks.push(call) == .queued else { return }
        doorbell.ring()
        interpreter?.state.janitor.watchTasks(of: self)
    }

    /// Whether what the loop of tasks calls just now belongs to a task that was given up and has not been told. With the
    /// GIL.
    func callsCancelledTask(_ state: ModuleState) -> Bool {
        guard let callee, let number = state.call(owning: callee) else { return false }
        var isCancelled = false
        cancelledTasks.forEach { if $0.number == number { isCancelled = true } }
        return isCancelled
    }

    /// The number of the call or callback that Python is executing; 0 when none. See `ReactorInbox`.
    var activity: UInt64 {
        get { reactor.activity.load(ordering: .relaxed) }
        set { reactor.activity.store(newValue, ordering: .relaxed) }
    }

    /// Interrupts what the thread executes, if it still executes that. From any thread, without the GIL.
    func interrupt(activity: UInt64, isRepeated: Bool = false) {
        interpreter?.state.janitor.interrupt(self, activity: activity, isRepeated: isRepeated)
    }

    /// Takes an interruption back that was set and perhaps not raised yet: it must not hit what comes next.
    /// On the context's thread, with the GIL.
    ///
    /// True where there was one.
    @discardableResult
    func dropInterruption() -> Bool {
        guard isInterrupted.load(ordering: .relaxed) else { return false }
        isInterrupted.store(false, ordering: .relaxed)
        ThreadState.interrupt(
            threadState.load(ordering: .relaxed), identifier: threadIdentifier.load(ordering: .relaxed),
            with: nil)
        sleep.store(0)
        hasInterrupted = true
        return true
    }

    /// Whether `endInterruption` has something to do.
    var mustEndInterruption: Bool { hasInterrupted || isInterrupted.load(ordering: .relaxed) }

    /// The same after a call or callback, with what an interruption leaves undone.
    func endInterruption() {
        dropInterruption()
        guard hasInterrupted else { return }
        hasInterrupted = false
        interpreter?.state.repairImports()
    }

    /// Takes an interruption back that Python handles already, as in `finally`: it is not to be raised twice.
    func dropHandledInterruption(_ state: ModuleState) {
        if isInterrupted.load(ordering: .relaxed), isHandling(state.interruption) { dropInterruption() }
    }

    /// Makes the thread stop: nothing is accepted any more, who waits for an answer gets one, and what
    /// Python executes is interrupted. On a BEAM thread, any number of times.
    func end(_ env: EnvPointer?) {
        if closing.exchange(true, ordering: .sequentiallyConsistent) { return }
        // Answered first: a call that sees the end may be over at once, by what then interrupts it.
        for call in calls.close() { answerStopped(call, env) }
        for call in tasks.withLock({ Array($0.values) }) { answerStopped(call, env) }
        ending.store(true, ordering: .sequentiallyConsistent)
        doorbell.ring()
        // Where it has none yet, the thread sees that it is to stop before it runs anything.
        interpreter?.state.janitor.interruptUntilEnded(self)
    }

    private func answerStopped(_ call: Call, _ env: EnvPointer?) {
        guard call.claimAnswer(), !call.isDetached else { return }
        let environment = Environment()
        let reason = makeError(
            environment.pointer, atoms.contextStopped, "the Python context was stopped during the call")
        send(from: env, to: call.caller, environment, call.answer(reason, in: environment))
    }

    // MARK: The owner's side of idle waiting

    /// Whether the BEAM watches the poller already, so that an idle thread need not ask.
    var isWatched: Bool { watched.load(ordering: .sequentiallyConsistent) }

    /// Whether the BEAM could not watch the poller, so that the thread has to wait for connections by itself.
    var isUnwatchable: Bool { unwatchable.load(ordering: .sequentiallyConsistent) }

    /// Has the BEAM tell the owner once when something happens to a connection. From the owner's NIF.
    func watch(_ env: EnvPointer?) {
        guard !isEnding, let descriptor = poller.forBeam() else { return }
        watched.store(true, ordering: .sequentiallyConsistent)
        if selectRead(env, descriptor, owner: owner, reference: atoms.undefined) { return }
        unwatchable.store(true, ordering: .sequentiallyConsistent)
        doorbell.ring()
    }

    /// The BEAM has told the owner, who tells us: the thread looks for itself.
    func wakeFromSelect() {
        watched.store(false, ordering: .sequentiallyConsistent)
        doorbell.ring()
    }

    /// The thread has made its poller.
    func pollerMade(_ descriptor: Int32) { poller.set(descriptor) }

    /// The thread will not use its poller any more.
    func pollerAbandoned() { poller.abandon() }

    /// Takes the poller out of the BEAM's poll set, where it ever was there.
    private func unwatch(_ env: EnvPointer?) {
        if let descriptor = poller.knownToBeam { selectStop(env, descriptor, undefined: atoms.undefined) }
    }

    override func selectStopped(_ descriptor: Int32) { poller.beamHasLetGo() }

    // MARK: The owner's end

    /// The owner asks for the end, from its NIF.
    func stop(_ env: EnvPointer?) {
        end(env)
        unwatch(env)
    }

    override func monitoredProcessDown(_ env: EnvPointer?) { stop(env) }

    // The BEAM holds the object while it watches the poller, so that is over here.
    override func unreferenced(_ env: EnvPointer?) { end(env) }
}

/// Counters of calls that anybody may read while the context runs. Times are in nanoseconds.
final class Statistics: Sendable {
    let calls = Atomic<Int>(0)
    /// Calls for which there was no room in the queue.
    let refused = Atomic<Int>(0)
    let batches = Atomic<Int>(0)
    let parks = Atomic<Int>(0)
    let lockWait = Atomic<Int>(0)
    let lockHold = Atomic<Int>(0)
}
