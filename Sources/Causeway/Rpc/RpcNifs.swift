import Beam
import CErlNif
import Streams

/// How many chunks one NIF call takes at most, and how many bytes it copies: it must not keep its scheduler for
/// long.
private let longestBatch = 1024
private let longestCopy = 1 << 20

/// How many bytes one NIF call sends: what is made ready and finds no room is made ready again.
private let mostSent = 1 << 18

/// The Erlang half of streaming calls. A chunk is a binary, or `{term, Size, Term}`, which takes as much of the window
/// as Size bytes. Errors and replies are the terms that Erlang's functions return, `{error, _}` and `{ok, _}`.
var rpcNifs: [ErlNifFunc] {
    [
        /// rpc_new(Window) -> Half | badarg
        ///
        /// The caller gets `{causeway_rpc, over}` when nothing can happen any more.
        nif("rpc_new", 1) { env, _, arguments in
            guard let arguments, let window = integer(env, arguments[0]), window > 0 else {
                return atoms.badarg
            }
            return resourceTypes.rpcHalf.makeTerm(env, RpcHalf(env, window: window)) ?? atoms.badarg
        },
        /// rpc_pair(Half, Half) -> ok | badarg
        nif("rpc_pair", 2) { env, _, arguments in
            guard let arguments, let first = half(env, arguments[0]), let second = half(env, arguments[1])
            else {
                return atoms.badarg
            }
            StreamHalf.pair(first, second)
            return atoms.ok
        },
        /// rpc_send(Half, Chunk) -> ok | busy | closed | no_peer | badarg
        nif("rpc_send", 2) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]),
                let chunk = Payload.chunk(env, arguments[1])
            else { return atoms.badarg }
            return term(half.send(chunk, origin: Origin(env)))
        },
        /// rpc_has_room(Half, Bytes) -> boolean() | badarg: whether so many could be sent now, or would be refused.
        nif("rpc_has_room", 2) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]), let bytes = integer(env, arguments[1])
            else { return atoms.badarg }
            return half.hasRoom(for: bytes) ? atoms.true : atoms.false
        },
        /// rpc_send_many(Half, [Chunk]) -> {Sent, ok | busy | closed | no_peer, Rest} | badarg
        nif("rpc_send_many", 2) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]) else { return atoms.badarg }
            return sendMany(env, arguments[1]) { half.send($0, origin: Origin(env)) }
        },
        /// rpc_deliver(Half, Chunk) -> ok | badarg: from elsewhere, whether there is room or not.
        nif("rpc_deliver", 2) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]),
                let chunk = Payload.chunk(env, arguments[1])
            else { return atoms.badarg }
            half.deliver(chunk, origin: Origin(env))
            return atoms.ok
        },
        /// rpc_deliver_many(Half, [Chunk]) -> {Delivered, ok | busy | closed, Rest} | badarg: as there is room.
        nif("rpc_deliver_many", 2) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]) else { return atoms.badarg }
            return sendMany(env, arguments[1]) { chunks in
                var count = 0
                for chunk in chunks {
                    switch half.inbox.send(chunk, origin: Origin(env)) {
                    case .sent: count += 1
                    case .busy: return (count, .busy)
                    case .closed, .aborted: return (count, .closed)
                    }
                }
                return (count, .sent)
            }
        },
        /// rpc_receive(Half) -> {chunk, Binary} | {data, Term} | empty | eof | {error, _} | badarg
        nif("rpc_receive", 1) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]) else { return atoms.badarg }
            return received(env, half, half.receive(origin: Origin(env)))
        },
        /// rpc_receive_many(Half, MaxBytes)
        ///     -> {ok, [{chunk, Binary} | {data, Term}]} | empty | eof | {error, _} | badarg
        nif("rpc_receive_many", 2) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]), let bytes = integer(env, arguments[1]),
                bytes > 0
            else { return atoms.badarg }
            var chunks: [Term] = []
            let receipt = half.receive(
                bytes: bytes, count: longestBatch, copies: longestCopy, origin: Origin(env)
            ) { chunk in
                // Nothing is lost because memory is short.
                guard let term = chunk.chunk(env) else {
                    return half.inbox.putBack(chunk, origin: Origin(env))
                }
                chunks.append(term)
            }
            if !chunks.isEmpty { return makeTuple(env, atoms.ok, makeList(env, chunks)) }
            if case .chunk = receipt { return atoms.badarg }
            return received(env, half, receipt)
        },
        /// rpc_wait(Half, receive | reply | inbox | outbox | {send | deliver, Chunk}, Message)
        ///     -> Waiter | Outcome | badarg
        ///
        /// Message is sent when `rpc_finish` has something to tell. The wait is given up with the last reference to
        /// the waiter.
        nif("rpc_wait", 3) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]) else { return atoms.badarg }
            return RpcWaiter.wait(env, half, arguments[1], message: arguments[2])
        },
        /// rpc_finish(Waiter) -> waiting | Outcome | badarg; after `waiting` no message will come.
        nif("rpc_finish", 1) { env, _, arguments in
            guard let arguments, let waiter = resourceTypes.rpcWaiter.object(env, arguments[0]) else {
                return atoms.badarg
            }
            return waiter.finish(env)
        },
        /// rpc_reply(Half) -> waiting | {ok, _} | {error, _} | badarg
        nif("rpc_reply", 1) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]) else { return atoms.badarg }
            return replyTerm(env, half)
        },
        /// rpc_set_reply(Half, {ok, _} | {error, _}) -> ok | badarg
        nif("rpc_set_reply", 2) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]) else { return atoms.badarg }
            half.setReply(AbortReason(copying: arguments[1]), origin: Origin(env))
            return atoms.ok
        },
        /// rpc_end(Half, send | both | {abort, Error} | {lose, Here, There}) -> ok | badarg
        nif("rpc_end", 2) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]) else { return atoms.badarg }
            return end(env, half, arguments[1])
        },
        /// rpc_event(Half, send | both | {abort | lose | reply, Term}) -> ok | badarg: the same from the other half.
        nif("rpc_event", 2) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]) else { return atoms.badarg }
            return event(env, half, arguments[1])
        },
        /// rpc_attach(Half, Window) -> ok | badarg: what is sent waits in an outbox from now on.
        nif("rpc_attach", 2) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]), let window = integer(env, arguments[1]),
                window > 0
            else { return atoms.badarg }
            _ = half.attachOutbox(window: window)
            return atoms.ok
        },
        /// rpc_outbox(Half, MaxBytes) -> {ok, Bytes, [Chunk | {reply, Reply}]} | empty | closed | aborted | badarg
        nif("rpc_outbox", 2) { env, _, arguments in
            guard let arguments, let outbox = half(env, arguments[0])?.outbox,
                let bytes = integer(env, arguments[1]), bytes > 0
            else { return atoms.badarg }
            return takeOutbox(env, outbox, bytes)
        },
        /// rpc_info(Half) -> map() | badarg
        nif("rpc_info", 1) { env, _, arguments in
            guard let arguments, let half = half(env, arguments[0]) else { return atoms.badarg }
            return info(env, half)
        },
    ]
}

@inline(__always)
private func half(_ env: EnvPointer?, _ term: Term) -> StreamHalf? {
    resourceTypes.rpcHalf.object(env, term)?.half
}

private func term(_ sending: StreamHalf.Sending) -> Term {
    switch sending {
    case .sent: atoms.ok
    case .busy: atoms.busy
    case .closed: atoms.closed
    case .noPeer: atoms.noPeer
    }
}

/// The elements of a tuple that begins with an atom.
private func tagged(_ env: EnvPointer?, _ term: Term) -> UnsafeBufferPointer<Term>? {
    var count: Int32 = 0
    var elements: UnsafePointer<Term>?
    guard enif_get_tuple(env, term, &count, &elements) != 0, count > 0 else { return nil }
    return UnsafeBufferPointer(start: elements, count: Int(count))
}

private func sendMany(
    _ env: EnvPointer?, _ list: Term, _ send: ([Payload]) -> (count: Int, sending: StreamHalf.Sending)
) -> Term {
    var chunks: [Payload] = []
    var places = [list]
    var head: Term = 0
    var rest = list
    var bytes = 0
    while chunks.count < longestBatch, bytes < mostSent, enif_get_list_cell(env, rest, &head, &rest) != 0 {
        guard let chunk = Payload.chunk(env, head) else { return atoms.badarg }
        chunks.append(chunk)
        bytes += chunk.count
        places.append(rest)
    }
    let (count, sending) = send(chunks)
    let left = count < places.count ? places[count] : rest
    return makeTuple(env, enif_make_long(env, count), term(sending), left)
}

private func received(_ env: EnvPointer?, _ half: StreamHalf, _ receipt: StreamHalf.Receipt) -> Term {
    switch receipt {
    case .chunk(let chunk):
        guard let term = chunk.chunk(env) else {
            // Nothing is lost because memory is short.
            half.inbox.putBack(chunk, origin: Origin(env))
            return atoms.badarg
        }
        return term
    case .empty: return atoms.empty
    case .end: return atoms.eof
    case .failed(let failure): return term(env, failure)
    }
}

/// The term that a value of the core is.
private func term(_ env: EnvPointer?, _ value: any StreamHalf.Value) -> Term {
    (value as? AbortReason)?.term(env) ?? atoms.undefined
}

private func replyTerm(_ env: EnvPointer?, _ half: StreamHalf) -> Term {
    switch half.reply {
    case nil: atoms.waiting
    case .known(let value): term(env, value)
    case .closed: makeError(env, atoms.closed)
    case .peerClosed: makeError(env, atoms.peerClosed)
    }
}

private func end(_ env: EnvPointer?, _ half: StreamHalf, _ how: Term) -> Term {
    let origin = Origin(env)
    if how == atoms.send {
        half.closeSending(origin: origin)
    } else if how == atoms.both {
        half.close(origin: origin)
    } else if let how = tagged(env, how), how.count == 2, how[0] == atoms.abort {
        half.abort(AbortReason(copying: how[1]), origin: origin)
    } else if let how = tagged(env, how), how.count == 3, how[0] == atoms.lose {
        half.lose(here: AbortReason(copying: how[1]), there: AbortReason(copying: how[2]), origin: origin)
    } else {
        return atoms.badarg
    }
    return atoms.ok
}

private func event(_ env: EnvPointer?, _ half: StreamHalf, _ what: Term) -> Term {
    let origin = Origin(env)
    if what == atoms.send {
        half.deliverEnd(origin: origin)
    } else if what == atoms.both {
        half.deliverClose(origin: origin)
    } else if let what = tagged(env, what), what.count == 2 {
        let value = AbortReason(copying: what[1])
        switch what[0] {
        case atoms.abort: half.deliverFailure(value, origin: origin)
        case atoms.lose: half.deliverLoss(value, origin: origin)
        case atoms.reply: half.deliver(reply: value, origin: origin)
        default: return atoms.badarg
        }
    } else {
        return atoms.badarg
    }
    return atoms.ok
}

private func takeOutbox(_ env: EnvPointer?, _ outbox: ByteQueue, _ bytes: Int) -> Term {
    var items: [Term] = []
    var taken = 0
    let receipt = outbox.receive(
        bytes: bytes, count: longestBatch, copies: longestCopy, origin: Origin(env)
    ) { message in
        if let reply = message.owner as? StreamHalf.ReplyMark {
            return items.append(makeTuple(env, atoms.reply, term(env, reply.value)))
        }
        guard let item = message.item(env) else { return outbox.putBack(message, origin: Origin(env)) }
        taken += message.chunkWeight
        items.append(item)
    }
    if !items.isEmpty { return makeTuple(env, atoms.ok, enif_make_long(env, taken), makeList(env, items)) }
    switch receipt {
    case .message: return atoms.badarg
    case .empty: return atoms.empty
    case .closed: return atoms.closed
    case .aborted: return atoms.aborted
    }
}

private func info(_ env: EnvPointer?, _ half: StreamHalf) -> Term {
    let info = half.info
    let numbers: [(StaticString, Int)] = [
        ("inbox_size", info.inbox), ("inbox_bytes", info.inboxBytes), ("window", half.inbox.limit),
        ("waiters", info.receivers), ("seq_in", info.sequenceIn), ("seq_out", info.sequenceOut),
    ]
    let flags: [(StaticString, Bool)] = [
        ("closed_recv", info.isReceivingClosed), ("closed_send", info.isSendingClosed),
    ]
    return makeMap(
        env,
        numbers.map { (Atom(env, $0).term, enif_make_long(env, $1)) }
            + flags.map { (Atom(env, $0).term, $1 ? atoms.true : atoms.false) }
            + [(atoms.reply, info.reply.map { term(env, $0) } ?? atoms.undefined)])
}

extension Payload {
    /// The chunk of a binary or `{term, Size, Term}`; nil for another term.
    fileprivate static func chunk(_ env: EnvPointer?, _ term: Term) -> Payload? {
        if let tuple = tagged(env, term) {
            guard tuple.count == 3, tuple[0] == atoms.term, let size = integer(env, tuple[1]), size >= 0
            else {
                return nil
            }
            return Payload(weighing: max(size, 1), ownedBy: AbortReason(copying: tuple[2]))
        }
        guard let chunk = make(env, term) else { return nil }
        // Even nothing takes memory.
        return chunk.count > 0 ? chunk : Payload(weighing: 1, ownedBy: EmptyChunk.shared)
    }

    /// What Erlang gets who receives it. Nil when memory is short.
    fileprivate func chunk(_ env: EnvPointer?) -> Term? {
        if let owner, let value = owner as? AbortReason { return makeTuple(env, atoms.data, value.term(env)) }
        return binary(env).map { makeTuple(env, atoms.chunk, $0) }
    }

    /// What `chunk(_:_:)` was made of.
    fileprivate func item(_ env: EnvPointer?) -> Term? {
        if let owner, let value = owner as? AbortReason {
            return makeTuple(env, atoms.term, enif_make_long(env, count), value.term(env))
        }
        return binary(env)
    }
}

/// By which Erlang holds one half of a call.
final class RpcHalf: Resource, @unchecked Sendable {
    let half: StreamHalf

    /// In a NIF of the process that is told when it is over.
    fileprivate init(_ env: EnvPointer?, window: Int) {
        var process = ErlNifPid()
        _ = enif_self(env, &process)
        let owner = process
        half = StreamHalf(window: window) { origin in
            let environment = Environment()
            let message = makeTuple(environment.pointer, atoms.causewayRpc, atoms.over)
            send(from: origin.env, to: owner, environment, message)
        }
    }

    override func unreferenced(_ env: EnvPointer?) { half.detach() }
}

/// An Erlang process that waits for something of a half. It holds this by a term; when it dies, that goes with its
/// heap, and nobody waits any more.
final class RpcWaiter: Resource, @unchecked Sendable {
    private enum Goal { case receive, send, deliver, readable, reply }

    private let half: StreamHalf
    private let goal: Goal
    private let waiter: Waiter
    private var queue: ByteQueue?

    private init(
        _ env: EnvPointer?, _ half: StreamHalf, _ goal: Goal, _ chunk: Payload? = nil, message: Term
    ) {
        self.half = half
        self.goal = goal
        let signal = Signal(env, message)
        let purpose: Waiter.Purpose =
            switch goal {
            case .receive: .receive
            case .send, .deliver: .send
            case .readable, .reply: .readable
            }
        waiter = Waiter(for: purpose, message: chunk) { signal.send($0) }
    }

    /// In a NIF of the process.
    fileprivate static func wait(_ env: EnvPointer?, _ half: StreamHalf, _ what: Term, message: Term) -> Term
    {
        let origin = Origin(env)
        if what == atoms.receive {
            return RpcWaiter(env, half, .receive, message: message).wait(env, in: half.inbox)
        }
        if what == atoms.inbox {
            return RpcWaiter(env, half, .readable, message: message).wait(env, in: half.inbox)
        }
        if what == atoms.outbox {
            guard let outbox = half.outbox else { return atoms.badarg }
            return RpcWaiter(env, half, .readable, message: message).wait(env, in: outbox)
        }
        if what == atoms.reply {
            let waiter = RpcWaiter(env, half, .reply, message: message)
            guard let term = resourceTypes.rpcWaiter.makeTerm(env, waiter) else { return atoms.badarg }
            return half.waitForReply(waiter.waiter, origin: origin) ? replyTerm(env, half) : term
        }
        guard let tuple = tagged(env, what), tuple.count == 2, let chunk = Payload.chunk(env, tuple[1]) else {
            return atoms.badarg
        }
        if tuple[0] == atoms.deliver {
            return RpcWaiter(env, half, .deliver, chunk, message: message).wait(env, in: half.inbox)
        }
        let waiter = RpcWaiter(env, half, .send, chunk, message: message)
        guard let term = resourceTypes.rpcWaiter.makeTerm(env, waiter) else { return atoms.badarg }
        guard let (queue, isSettled) = half.waitToSend(waiter.waiter, origin: origin) else {
            return atoms.closed
        }
        waiter.queue = queue
        return isSettled ? waiter.finish(env) : term
    }

    private func wait(_ env: EnvPointer?, in queue: ByteQueue) -> Term {
        self.queue = queue
        guard let term = resourceTypes.rpcWaiter.makeTerm(env, self) else { return atoms.badarg }
        return queue.wait(waiter, origin: Origin(env)) ? finish(env) : term
    }

    fileprivate func finish(_ env: EnvPointer?) -> Term {
        let origin = Origin(env)
        guard let queue else {
            let isSettled = waiter.isSettled
            half.endWaitForReply(waiter, origin: origin)
            return isSettled ? replyTerm(env, half) : atoms.waiting
        }
        switch queue.finish(waiter, origin: origin) {
        case nil: return atoms.waiting
        case .message(let chunk): return received(env, half, half.taken(.message(chunk), origin))
        case .sent:
            if goal == .send { half.countSent() }
            return atoms.ok
        // Of one that has room for everything: it never is.
        case .ready, .tooLarge: return atoms.ready
        case .closed where goal == .receive: return received(env, half, half.taken(.closed, origin))
        case .closed, .aborted: return atoms.closed
        }
    }

    override func unreferenced(_ env: EnvPointer?) {
        guard let queue else { return half.endWaitForReply(waiter, origin: Origin(env)) }
        queue.cancel(waiter, origin: Origin(env))
    }
}
