import Beam
import CErlNif
import Streams
import Synchronization

/// One request of an Erlang process to Python, from when it is queued until it is answered, cancelled
/// or dropped.
///
/// The caller holds it by a term while it waits. When the caller dies, that term goes with its heap,
/// and `unreferenced` cancels the call: nobody has to monitor callers.
final class Call: Resource, @unchecked Sendable {
    /// Where it stands. Only `queued` and `running` can be left, each by one compare-and-exchange, so
    /// exactly one of answer and cancellation wins.
    private enum State {
        static let queued: UInt8 = 0
        static let running: UInt8 = 1
        static let answered: UInt8 = 2
        static let cancelled: UInt8 = 3
    }

    /// How the caller learns of the answer. It looks for it for a short while, in which a small one is kept for it; then
    /// it waits for a message.
    private enum Delivery {
        static let message: UInt8 = 0
        static let looking: UInt8 = 1
        static let kept: UInt8 = 2
    }

    private static let fewLooks = 20
    /// Nanoseconds that quick calls take, and are looked for, at most.
    static let quick: Int64 = 50_000

    /// How errors are wanted.
    enum ErrorForm: Int { case pair = 0, map = 1 }

    /// By which the janitor knows what it would interrupt: given by the context's thread when the call begins,
    /// and read by others only after they have seen that it runs.
    private(set) var number: UInt64 = 0
    let caller: ErlNifPid
    /// On whose behalf it runs, whose names it sees: the caller, or the process that has started a stream.
    let beneficiary: ErlNifPid
    /// Where `tag` and `request` live. Cleared by the thread that has answered, or by whom gives it up in the queue.
    let environment: Environment
    /// The first element of the answer `{Tag, Result}`.
    private(set) var tag: Term
    /// `{call, Module, Function, Args, Kwargs}`, `{eval, Code, Locals}` or `{exec, Code}`, perhaps in a
    /// `{async, Request}`, `{collect, Request}`, `{stream, Request}` or `{setup, Request}`; `{next, Iterator, Count, Outbox}`.
    private(set) var request: Term
    let errorForm: ErrorForm
    /// When the timekeeper gives it up, on the monotonic clock in nanoseconds.
    let deadline: Int64
    /// A cast: nobody waits, and the end of its term does not cancel it.
    let isDetached: Bool
    /// Where it is queued. No cycle lasts: a context lets go of every call that is over.
    let context: Context
    private let state = Atomic<UInt8>(State.queued)
    private let delivery: Atomic<UInt8>
    /// A result in `environment`, which belongs to the caller once it is kept.
    private var kept: Term
    /// How often the caller has looked, and since when. Its own.
    private var looks = 0
    private var looksSince: Int64 = 0
    /// A task of the context's event loop answers it.
    let isTask = Atomic<Bool>(false)
    /// Held while the terms move.
    private let moving = Mutex(())

    init(
        caller: ErlNifPid, beneficiary: ErlNifPid? = nil, environment: consuming Environment, tag: Term,
        request: Term, errorForm: ErrorForm, deadline: Int64, isDetached: Bool, isLookedFor: Bool = false,
        context: Context
    ) {
        self.caller = caller
        self.beneficiary = beneficiary ?? caller
        self.environment = environment
        self.tag = tag
        self.request = request
        self.errorForm = errorForm
        self.deadline = deadline
        self.isDetached = isDetached
        self.context = context
        delivery = Atomic(isLookedFor ? Delivery.looking : Delivery.message)
        kept = tag
    }

    /// Takes the call to be run; false when it was cancelled while it was queued.
    func begin(as number: UInt64) -> Bool {
        self.number = number
        return move(from: State.queued, to: State.running)
    }

    /// Takes the right to answer; false when the call was cancelled.
    func claimAnswer() -> Bool {
        move(from: State.running, to: State.answered) || move(from: State.queued, to: State.answered)
    }

    /// Whether it was given up.
    var isCancelled: Bool { state.load(ordering: .sequentiallyConsistent) == State.cancelled }

    /// Whether it is neither queued nor running any more.
    var isOver: Bool { state.load(ordering: .sequentiallyConsistent) > State.running }

    /// Gives the call up: it will not be answered, and what it runs is interrupted.
    ///
    /// False when the answer is on its way already.
    func cancel() -> Bool {
        if move(from: State.queued, to: State.cancelled) {
            // It may wait for long before somebody looks at it, with others that were given up.
            forgetRequest()
            context.abandon()
            return true
        }
        guard move(from: State.running, to: State.cancelled) else { return false }
        if isTask.load(ordering: .sequentiallyConsistent) {
            context.cancelTask(of: self)
        } else {
            context.interrupt(activity: number)
        }
        return true
    }

    /// Lets go of the request, which nobody reads any more. Who answers needs the tag.
    private func forgetRequest() {
        moving.withLock { _ in
            let kept = Environment()
            let keptTag = kept.copy(tag)
            environment.clear()
            tag = environment.copy(keptTag)
            request = atoms.undefined
        }
    }

    /// The message that answers the call.
    func answer(_ result: Term, in environment: borrowing Environment) -> Term {
        let copy = moving.withLock { _ in environment.copy(tag) }
        return makeTuple(environment.pointer, copy, result)
    }

    /// Keeps a small result for a caller that still looks for it. By whom has claimed the answer; false when the caller
    /// wants a message.
    func keep(_ result: Term, isBesideRequest: Bool) -> Bool {
        guard delivery.load(ordering: .relaxed) == Delivery.looking else { return false }
        kept = isBesideRequest ? result : environment.copy(result)
        return exchangeDelivery(Delivery.looking, Delivery.kept)
    }

    /// The result that was kept for the caller, once. After `wait` it has looked often enough, and a message comes.
    func look(_ env: EnvPointer?) -> Term {
        let state = delivery.load(ordering: .acquiring)
        guard state == Delivery.looking else { return state == Delivery.kept ? takeKept(env) : atoms.wait }
        looks += 1
        // Where it is over, and nothing is kept, the message is there, or will be in a moment.
        if !isOver, looksOn { return atoms.pending }
        return exchangeDelivery(Delivery.looking, Delivery.message) ? atoms.wait : takeKept(env)
    }

    /// Whether the caller looks again. Other processes have their turn between two looks; where there are none, one
    /// takes a fifth of a microsecond, and a scheduler that has nothing to do goes to sleep after some 20: that and its
    /// waking take as long again. So quick calls are looked for longer, unless the looks have taken long themselves.
    private var looksOn: Bool {
        switch looks {
        case 1:
            return true
        case 2:
            looksSince = monotonicNanoseconds()
            return true
        case ...Call.fewLooks:
            return true
        default:
            return context.isQuick.load(ordering: .relaxed) && !isTask.load(ordering: .relaxed)
                && monotonicNanoseconds() - looksSince < Call.quick
        }
    }

    private func takeKept(_ env: EnvPointer?) -> Term {
        delivery.store(Delivery.message, ordering: .relaxed)
        let result = enif_make_copy(env, kept)
        // Made by this scheduler, if the caller has not moved, and freed by it: no other thread has to. It is done with
        // the GIL otherwise, and whoever reads the request looks under it whether the call is over.
        environment.clear()
        return result
    }

    /// Lets go of the arguments: what their terms refer to is not held by the call any more. On the context's thread,
    /// with the GIL, when they are converted.
    func forgetArguments() {
        moving.withLock { _ in
            // Whoever has ended the call may be reading them.
            guard !isOver else { return }
            let kept = Environment()
            let keptTag = kept.copy(tag)
            let keptRequest = kept.copy(outline)
            environment.clear()
            tag = environment.copy(keptTag)
            request = environment.copy(keptRequest)
        }
    }

    /// What `summary` needs of the request.
    private var outline: Term {
        var arity: Int32 = 0
        var parts: UnsafePointer<Term>?
        let env = environment.pointer
        guard enif_get_tuple(env, request, &arity, &parts) != 0, let parts, arity > 1 else { return request }
        guard parts[0] == atoms.call, arity == 5 else { return makeTuple(env, parts[0], atoms.undefined) }
        return makeTuple(env, parts[0], parts[1], parts[2], atoms.undefined, atoms.undefined)
    }

    /// What it calls, `{Module, Function}`, or the kind of its request. With the GIL, under which it is answered:
    /// its terms are as they were until then.
    func summary(_ env: EnvPointer?) -> Term {
        // Under the lock: a call that is taken but has not begun may be given up now.
        moving.withLock { _ in
            var arity: Int32 = 0
            var parts: UnsafePointer<Term>?
            guard !isOver, enif_get_tuple(environment.pointer, request, &arity, &parts) != 0, let parts,
                arity > 1
            else { return atoms.undefined }
            guard parts[0] == atoms.call, arity == 5 else { return parts[0] }
            return makeTuple(env, enif_make_copy(env, parts[1]), enif_make_copy(env, parts[2]))
        }
    }

    override func unreferenced(_ env: EnvPointer?) { if !isDetached { _ = cancel() } }

    private func exchangeDelivery(_ old: UInt8, _ new: UInt8) -> Bool {
        delivery.compareExchange(expected: old, desired: new, ordering: .acquiringAndReleasing).exchanged
    }

    private func move(from old: UInt8, to new: UInt8) -> Bool {
        state.compareExchange(expected: old, desired: new, ordering: .sequentiallyConsistent).exchanged
    }
}
