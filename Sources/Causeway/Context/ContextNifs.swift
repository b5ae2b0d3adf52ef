import Beam
import CErlNif
import Python
import Streams
import Synchronization

/// The Erlang half of contexts.
var contextNifs: [ErlNifFunc] {
    [
        /// context_start(Id, Mode, MaxConnections, Linger, MaxQueue) -> Context | {error, _}
        /// The calling process is the owner; it is told `{causeway, started}` when the thread runs.
        nif("context_start", 5) { env, _, arguments in
            guard let arguments, let mode = ContextMode(arguments[1]),
                let identifier = integer(env, arguments[0]),
                let maximumConnections = integer(env, arguments[2]), let linger = integer(env, arguments[3]),
                let maximumQueue = integer(env, arguments[4])
            else { return enif_make_badarg(env) }
            if let obstacle = mode.obstacle { return makeError(env, atoms.unsupported, obstacle) }
            var owner = ErlNifPid()
            _ = enif_self(env, &owner)
            let options = Context.Options(
                maximumConnections: maximumConnections, linger: Int32(clamping: linger),
                maximumQueue: maximumQueue, mode: mode)
            let context = Context(identifier: identifier, owner: owner, options: options)
            guard let term = resourceTypes.context.makeTerm(env, context), context.monitor(env, owner) else {
                return enif_make_badarg(env)
            }
            do throws(Errno) { try ContextThread.start(context) } catch { return makeError(env, error) }
            return term
        },
        /// context_stop(Context) -> ok. `{causeway, stopped}` follows when the thread has ended.
        nif("context_stop", 1) { env, _, arguments in
            withContext(env, arguments) { context, env in
                context.stop(env)
                return atoms.ok
            }
        },
        /// context_watch(Context) -> ok: the answer to `{causeway, idle}`.
        nif("context_watch", 1) { env, _, arguments in
            withContext(env, arguments) { context, env in
                context.watch(env)
                return atoms.ok
            }
        },
        /// context_wake(Context) -> ok: the answer to `{select, Context, undefined, ready_input}`.
        nif("context_wake", 1) { env, _, arguments in
            withContext(env, arguments) { context, _ in
                context.wakeFromSelect()
                return atoms.ok
            }
        },
        /// context_interrupt(Context) -> ok | idle: interrupts what it executes, as if the caller had given it up.
        nif("context_interrupt", 1) { env, _, arguments in
            withContext(env, arguments) { context, _ in
                let activity = context.activity
                guard activity != 0 else { return atoms.idle }
                context.interrupt(activity: activity, isRepeated: true)
                return atoms.ok
            }
        },
        /// context_diagnose(Context, Tag) -> map(). `{Tag, Stack, Call}` follows, if the GIL can be had.
        nif("context_diagnose", 2) { env, _, arguments in
            withContext(env, arguments) { context, env in
                guard let tag = arguments?[1] else { return enif_make_badarg(env) }
                return diagnose(context, env, tag)
            }
        },
        /// context_stats(Context) -> map()
        nif("context_stats", 1) { env, _, arguments in
            withContext(env, arguments) { context, env in statistics(of: context, env) }
        },
        /// submit(Context | {Context, …}, {Tag, Request} | {Tag, Request, OnBehalfOf}, ErrorForm, Milliseconds | infinity)
        ///     -> Call | full | closed | badarg
        /// The answer is the message `{Tag, Result}`. Of several contexts the one with the least to do is taken.
        nif("submit", 4) { env, _, arguments in submit(env, arguments, .message) },
        /// ask(Context | {Context, …}, {Tag, Request}, ErrorForm, Milliseconds | infinity) -> Call | full | closed | badarg
        /// The same for a caller that looks for the answer first, until it is told to wait.
        nif("ask", 4) { env, _, arguments in submit(env, arguments, .look) },
        /// look(Call) -> Result | pending | wait. By the process that has asked; after `wait` the answer is a message.
        nif("look", 1) { env, _, arguments in withCall(env, arguments) { call, env in call.look(env) } },
        /// cast(Context | {Context, …}, Request) -> ok | full | closed | badarg
        nif("cast", 2) { env, _, arguments in submit(env, arguments, .none) },
        /// cancel(Call) -> cancelled | sent. After `sent` the answer is in the mailbox or on its way.
        nif("cancel", 1) { env, _, arguments in
            withCall(env, arguments) { call, _ in call.cancel() ? atoms.cancelled : atoms.sent }
        },
    ]
}

private func withContext(
    _ env: EnvPointer?, _ arguments: UnsafePointer<Term>?, _ body: (Context, EnvPointer?) -> Term
) -> Term {
    guard let arguments, let context = resourceTypes.context.object(env, arguments[0]) else {
        return enif_make_badarg(env)
    }
    return body(context, env)
}

private func withCall(
    _ env: EnvPointer?, _ arguments: UnsafePointer<Term>?, _ body: (Call, EnvPointer?) -> Term
) -> Term {
    guard let arguments, let call = resourceTypes.call.object(env, arguments[0]) else {
        return enif_make_badarg(env)
    }
    return body(call, env)
}

/// How the caller gets the answer.
private enum AnswerForm { case message, look, none }

/// What Erlang's `receive … after` takes at most, in milliseconds.
private let longestTimeout = 0xFFFF_FFFF

private func submit(_ env: EnvPointer?, _ arguments: UnsafePointer<Term>?, _ answer: AnswerForm) -> Term {
    guard let arguments, let context = leastLoaded(env, arguments[0]) else { return enif_make_badarg(env) }
    let environment = Environment()
    var caller = ErlNifPid()
    _ = enif_self(env, &caller)
    var beneficiary: ErlNifPid?
    // One copy of both: each costs as much as the other parts of this function together.
    var tag = atoms.undefined
    var request = environment.copy(arguments[1])
    var form = Call.ErrorForm.pair
    var deadline = Int64.max
    if answer != .none {
        var count: Int32 = 0
        var pair: UnsafePointer<Term>?
        guard enif_get_tuple(environment.pointer, request, &count, &pair) != 0, count >= 2, let pair,
            let wanted = integer(env, arguments[2]).flatMap(Call.ErrorForm.init(rawValue:))
        else { return enif_make_badarg(env) }
        (tag, request, form) = (pair[0], pair[1], wanted)
        if arguments[3] != atoms.infinity {
            guard let limit = integer(env, arguments[3]), (0...longestTimeout).contains(limit) else {
                return enif_make_badarg(env)
            }
            deadline = monotonicNanoseconds() + Int64(limit) * 1_000_000
        }
        if count == 3 {
            var process = ErlNifPid()
            guard enif_get_local_pid(env, pair[2], &process) != 0 else { return enif_make_badarg(env) }
            beneficiary = process
        }
    }
    let call = Call(
        caller: caller, beneficiary: beneficiary, environment: environment, tag: tag, request: request,
        errorForm: form, deadline: deadline, isDetached: answer == .none, isLookedFor: answer == .look,
        context: context)
    let term: Term
    if answer == .none {
        term = atoms.ok
    } else {
        guard let made = resourceTypes.call.makeTerm(env, call) else { return enif_make_badarg(env) }
        term = made
    }
    switch context.submit(call) {
    case .queued: return term
    case .full: return atoms.full
    case .closed: return atoms.closed
    }
}

/// The context of a term, or of several in a tuple the first with the least to do.
private func leastLoaded(_ env: EnvPointer?, _ term: Term) -> Context? {
    if let context = resourceTypes.context.object(env, term) { return context }
    var count: Int32 = 0
    var elements: UnsafePointer<Term>?
    guard enif_get_tuple(env, term, &count, &elements) != 0, let elements else { return nil }
    var best: Context?
    var leastLoad = Int.max
    var now: Int64?
    for index in 0..<Int(count) {
        guard let context = resourceTypes.context.object(env, elements[index]) else { return nil }
        var load = context.isEnding ? Int.max - 1 : context.load
        if load > 0, !context.isEnding {
            // Read once, and only where the first context is not idle.
            let time = now ?? monotonicNanoseconds()
            now = time
            load += context.heldUp(at: time) * callsPerMillisecond
        }
        if load < leastLoad {
            best = context
            leastLoad = load
            if load == 0 { break }
        }
    }
    return best
}

/// How many queued calls a millisecond that a context has run one call counts for.
private let callsPerMillisecond = 256

private func diagnose(_ context: Context, _ env: EnvPointer?, _ tag: Term) -> Term {
    var process = ErlNifPid()
    _ = enif_self(env, &process)
    let question = Environment()
    let copy = question.copy(tag)
    let diagnosis = Diagnosis(
        context: context, process: process, environment: Environment.Shared(question), tag: copy)
    context.interpreter?.state.janitor.answer(diagnosis)
    let activity = context.activity
    let isCallback = activity >= ReactorInbox.firstCallback
    let nanoseconds = activity == 0 ? 0 : monotonicNanoseconds() - context.busySince.load(ordering: .relaxed)
    return makeMap(
        env,
        [
            (atoms.activity, activity == 0 ? atoms.idle : isCallback ? atoms.callback : atoms.call),
            (atoms.runningMs, enif_make_long(env, Int(max(0, nanoseconds) / 1_000_000))),
            (atoms.queued, enif_make_long(env, context.calls.count)),
            (
                atoms.activeConnections,
                enif_make_long(env, context.reactor.connections.load(ordering: .relaxed))
            ),
        ])
}

private func statistics(of context: Context, _ env: EnvPointer?) -> Term {
    let statistics = context.statistics
    let reactor = context.reactor.statistics
    func number(_ counter: borrowing Atomic<Int>) -> Term {
        enif_make_long(env, counter.load(ordering: .relaxed))
    }
    func microseconds(_ counter: borrowing Atomic<Int>) -> Term {
        enif_make_long(env, counter.load(ordering: .relaxed) / 1000)
    }
    return makeMap(
        env,
        [
            (atoms.id, enif_make_long(env, context.identifier)),
            (atoms.activeConnections, number(context.reactor.connections)),
            (atoms.totalConnections, number(reactor.totalConnections)),
            (atoms.totalRequests, number(reactor.requests)),
            (atoms.maxConnections, enif_make_long(env, context.options.maximumConnections)),
            (atoms.listeners, number(reactor.listeners)),
            (atoms.bytesIn, number(reactor.bytesIn)),
            (atoms.bytesOut, number(reactor.bytesOut)),
            (atoms.readWaits, number(reactor.readWaits)),
            (atoms.callbackUs, microseconds(reactor.callbackTime)),
            (atoms.errors, number(reactor.errors)),
            (atoms.lockWaitUs, microseconds(statistics.lockWait)),
            (atoms.lockHoldUs, microseconds(statistics.lockHold)),
            (atoms.calls, number(statistics.calls)),
            (atoms.queued, enif_make_long(env, context.calls.count)),
            (atoms.refused, number(statistics.refused)),
            (atoms.batches, number(statistics.batches)),
            (atoms.parks, number(statistics.parks)),
        ])
}
