import Beam
import CErlNif
import Streams
import Synchronization

/// How many messages one NIF call takes at most, and how many bytes it copies: it must not keep its scheduler for
/// long.
private let longestBatch = 4096
private let longestCopy = 1 << 20

/// The Erlang half of byte channels. What is no channel is answered by `badarg`, of which Erlang makes an
/// error with a text.
var channelNifs: [ErlNifFunc] {
    [
        /// channel_new(MaxSize) -> Channel | badarg
        nif("channel_new", 1) { env, _, arguments in
            guard let arguments, let limit = integer(env, arguments[0]), limit >= 0 else {
                return atoms.badarg
            }
            return ByteChannel(limit: limit, isErlangs: true).term(env) ?? atoms.badarg
        },
        /// channel_send(Channel, Iodata) -> ok | busy | closed | {aborted, Reason} | badarg
        nif("channel_send", 2) { env, _, arguments in
            guard let channel = channel(env, arguments), let message = message(env, arguments) else {
                return atoms.badarg
            }
            switch channel.queue.send(message, origin: Origin(env)) {
            case .sent: return atoms.ok
            case .busy: return atoms.busy
            case .closed: return atoms.closed
            case .aborted: return channel.abortion(env)
            }
        },
        /// channel_has_room(Channel, Bytes) -> boolean() | badarg: whether so many could be sent now, or would be refused.
        nif("channel_has_room", 2) { env, _, arguments in
            guard let channel = channel(env, arguments), let arguments,
                let bytes = integer(env, arguments[1])
            else { return atoms.badarg }
            return channel.queue.hasRoom(for: bytes) ? atoms.true : atoms.false
        },
        /// channel_receive(Channel) -> {ok, Binary} | empty | closed | {aborted, Reason} | badarg
        nif("channel_receive", 1) { env, _, arguments in
            guard let channel = channel(env, arguments) else { return atoms.badarg }
            return channel.answer(env, channel.queue.receive(origin: Origin(env)))
        },
        /// channel_receive_many(Channel, MaxBytes, AtLeastOne)
        ///     -> {ok, [Binary]} | empty | closed | {aborted, Reason} | badarg
        nif("channel_receive_many", 3) { env, _, arguments in
            guard let channel = channel(env, arguments), let arguments,
                let bytes = integer(env, arguments[1]), bytes > 0
            else { return atoms.badarg }
            var binaries: [Term] = []
            let receipt = channel.queue.receive(
                bytes: bytes, count: longestBatch, copies: longestCopy,
                atLeastOne: arguments[2] == atoms.true,
                origin: Origin(env)
            ) { message in
                // Nothing is lost because memory is short.
                guard let binary = message.binary(env) else {
                    return channel.queue.putBack(message, origin: Origin(env))
                }
                binaries.append(binary)
            }
            if !binaries.isEmpty { return makeTuple(env, atoms.ok, makeList(env, binaries)) }
            if case .message = receipt { return atoms.badarg }
            return channel.answer(env, receipt)
        },
        /// channel_wait(Channel, receive | Iodata, Message) -> Waiter | Outcome | badarg
        ///
        /// Waits for a message, or for room for one. Message is sent when `channel_finish` has something to tell. The
        /// wait is given up with the last reference to the waiter.
        nif("channel_wait", 3) { env, _, arguments in
            guard let channel = channel(env, arguments), let arguments,
                let waiter = ErlangWaiter(channel, env, arguments[1], message: arguments[2])
            else { return atoms.badarg }
            return waiter.wait(env)
        },
        /// channel_notify(Channel, readable | writable, Message) -> ok | badarg
        ///
        /// Message is sent when the channel is so, unless the process ends before.
        nif("channel_notify", 3) { env, _, arguments in
            guard let channel = channel(env, arguments), let arguments,
                arguments[1] == atoms.readable || arguments[1] == atoms.writable
            else { return atoms.badarg }
            Notification(channel, env, arguments[1], message: arguments[2]).wait(env)
            return atoms.ok
        },
        /// channel_finish(Waiter) -> waiting | Outcome; after `waiting` no message will come.
        nif("channel_finish", 1) { env, _, arguments in
            guard let arguments, let waiter = resourceTypes.channelWaiter.object(env, arguments[0]) else {
                return atoms.badarg
            }
            return waiter.finish(env)
        },
        /// channel_close(Channel) -> ok | badarg
        nif("channel_close", 1) { env, _, arguments in
            guard let channel = channel(env, arguments) else { return atoms.badarg }
            channel.queue.close(origin: Origin(env))
            return atoms.ok
        },
        /// channel_abort(Channel, Reason) -> ok | badarg
        nif("channel_abort", 2) { env, _, arguments in
            guard let channel = channel(env, arguments), let arguments else { return atoms.badarg }
            channel.abort(AbortReason(copying: arguments[1]), origin: Origin(env))
            return atoms.ok
        },
        /// channel_info(Channel) -> map() | badarg
        nif("channel_info", 1) { env, _, arguments in
            guard let channel = channel(env, arguments) else { return atoms.badarg }
            return channel.info(env)
        },
    ]
}

private func channel(_ env: EnvPointer?, _ arguments: UnsafePointer<Term>?) -> ByteChannel? {
    guard let arguments else { return nil }
    return resourceTypes.channel.object(env, arguments[0])?.channel
}

private func message(_ env: EnvPointer?, _ arguments: UnsafePointer<Term>?) -> Payload? {
    guard let arguments else { return nil }
    return Payload.make(env, arguments[1])
}

extension ByteChannel {
    fileprivate func answer(_ env: EnvPointer?, _ receipt: ByteQueue.Receipt) -> Term {
        switch receipt {
        case .message(let message): received(env, message)
        case .empty: atoms.empty
        case .closed: atoms.closed
        case .aborted: abortion(env)
        }
    }

    fileprivate func received(_ env: EnvPointer?, _ message: Payload) -> Term {
        guard let binary = message.binary(env) else {
            // Nothing is lost because memory is short.
            queue.putBack(message, origin: Origin(env))
            return atoms.badarg
        }
        return makeTuple(env, atoms.ok, binary)
    }

    /// `{aborted, Reason}`.
    fileprivate func abortion(_ env: EnvPointer?) -> Term {
        makeTuple(env, atoms.aborted, abortReason?.term(env) ?? atoms.undefined)
    }

    fileprivate func info(_ env: EnvPointer?) -> Term {
        let (numbers, flags) = facts
        return makeMap(
            env,
            numbers.map { (Atom(env, $0).term, enif_make_long(env, $1)) }
                + flags.map { (Atom(env, $0).term, $1 ? atoms.true : atoms.false) })
    }
}

/// An Erlang process that waits for a channel.
///
/// It holds this by a term; when it dies, that goes with its heap, and nobody waits any more. A message that was
/// kept for it then is the next again.
final class ErlangWaiter: Resource, @unchecked Sendable {
    private let channel: ByteChannel
    private let waiter: Waiter

    /// Nil for what is neither `receive` nor iodata to be sent. In a NIF of the process.
    fileprivate init?(_ channel: ByteChannel, _ env: EnvPointer?, _ purpose: Term, message: Term) {
        self.channel = channel
        let signal = Signal(env, message)
        if purpose == atoms.receive {
            waiter = Waiter(for: .receive) { signal.send($0) }
        } else {
            guard let payload = Payload.make(env, purpose) else { return nil }
            waiter = Waiter(for: .send, message: payload) { signal.send($0) }
        }
    }

    fileprivate func wait(_ env: EnvPointer?) -> Term {
        guard let term = resourceTypes.channelWaiter.makeTerm(env, self) else { return atoms.badarg }
        return channel.queue.wait(waiter, origin: Origin(env)) ? finish(env) : term
    }

    fileprivate func finish(_ env: EnvPointer?) -> Term {
        switch channel.queue.finish(waiter, origin: Origin(env)) {
        case nil: atoms.waiting
        case .message(let message): channel.received(env, message)
        case .sent: atoms.ok
        // Of one that has room for everything: it never is.
        case .ready, .tooLarge: atoms.ready
        case .closed: atoms.closed
        case .aborted: channel.abortion(env)
        }
    }

    override func unreferenced(_ env: EnvPointer?) { channel.queue.cancel(waiter, origin: Origin(env)) }
}

/// An Erlang process that is to be told how a channel is. Nobody refers to this: it keeps itself until it has told, or
/// until the process has ended.
final class Notification: Resource, @unchecked Sendable {
    private weak let channel: ByteChannel?
    private let signal: Signal
    private let isWritable: Bool
    private let isOver = Atomic<Bool>(false)
    private let waiter = Mutex<Waiter?>(nil)

    fileprivate init(_ channel: ByteChannel, _ env: EnvPointer?, _ what: Term, message: Term) {
        self.channel = channel
        signal = Signal(env, message)
        isWritable = what == atoms.writable
    }

    fileprivate func wait(_ env: EnvPointer?) {
        guard let channel, resourceTypes.notification.hold(self) else { return }
        let waiter = Waiter(for: isWritable ? .writable : .readable) { [self] origin in tell(origin) }
        self.waiter.withLock { $0 = waiter }
        // First: when it has told, it may be gone.
        _ = monitor(env, signal.process)
        if channel.queue.wait(waiter, origin: Origin(env)) { return tell(Origin(env)) }
        // The process may have ended before there was something to cancel.
        if isOver.load(ordering: .sequentiallyConsistent) {
            channel.queue.cancel(waiter, origin: Origin(env))
        }
    }

    private func tell(_ origin: Origin) {
        guard !isOver.exchange(true, ordering: .sequentiallyConsistent) else { return }
        signal.send(origin)
        end()
    }

    override func monitoredProcessDown(_ env: EnvPointer?) {
        guard !isOver.exchange(true, ordering: .sequentiallyConsistent) else { return }
        if let waiter = waiter.withLock({ $0 }) { channel?.queue.cancel(waiter, origin: Origin(env)) }
        end()
    }

    private func end() {
        waiter.withLock { $0 = nil }
        release()
    }
}

/// A message to a process that is made before it is known when it is sent.
final class Signal: @unchecked Sendable {
    let process: ErlNifPid
    private let environment = Environment()
    private let message: Term

    /// To the process that calls the NIF.
    init(_ env: EnvPointer?, _ message: Term) {
        var process = ErlNifPid()
        _ = enif_self(env, &process)
        self.process = process
        self.message = environment.copy(message)
    }

    /// Once, on the thread that has settled the wait.
    func send(_ origin: Origin) { Beam.send(from: origin.env, to: process, environment, message) }
}
