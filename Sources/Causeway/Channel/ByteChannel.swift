import Beam
import CErlNif
import CPython
import Python
import Streams
import Synchronization

/// A byte channel as both languages hold it.
///
/// Erlang holds it by a `ChannelHandle`, of which there is at most one at a time; Python's objects hold the
/// channel itself, so that they do not count as somebody in Erlang.
final class ByteChannel: Sendable {
    let queue: ByteQueue
    private let isErlangs: Bool
    private let reason = Mutex<AbortReason?>(nil)
    private let handles = Mutex(Handles())

    fileprivate struct Handles {
        /// How many Erlang has; the destructor of an old one may come after the making of a new one.
        var count = 0
        /// The external form of the reference that Erlang has or had.
        var reference: [UInt8] = []
    }

    /// `isErlangs`: whether Erlang has made it. Then it is of no use any more when Erlang has let go of it.
    init(limit: Int, isErlangs: Bool) {
        queue = ByteQueue(limit: limit)
        self.isErlangs = isErlangs
    }

    // MARK: Erlang's reference

    /// The term by which Erlang knows the channel, always the same while it has one. Nil when memory is short.
    func term(_ env: EnvPointer?) -> Term? {
        handles.withLock { handles in
            // A resource whose last reference is gone cannot be referred to again, and whether it is gone only the
            // BEAM knows: reading the external form makes a reference to the resource only if it is still there.
            if let term = handles.read(env) { return term }
            guard let term = resourceTypes.channel.makeTerm(env, ChannelHandle(self)) else { return nil }
            handles.write(env, term)
            handles.count += 1
            if handles.count == 1 { queue.setAbandoned(false, origin: Origin(env)) }
            return term
        }
    }

    /// Erlang has let go of a handle. On a BEAM thread.
    fileprivate func handleEnded(_ env: EnvPointer?) {
        handles.withLock { handles in
            handles.count -= 1
            guard handles.count == 0 else { return }
            if isErlangs {
                queue.setAbandoned(true, origin: Origin(env))
            } else {
                queue.tellAll(origin: Origin(env))
            }
        }
    }

    /// How it stands, by the names that both languages have for that.
    var facts: (numbers: [(StaticString, Int)], flags: [(StaticString, Bool)]) {
        let info = queue.info
        return (
            [
                ("size", info.size), ("max_size", queue.limit), ("messages", info.messages),
                ("messages_in", info.messagesIn), ("messages_out", info.messagesOut),
                ("bytes_in", info.bytesIn), ("bytes_out", info.bytesOut),
                ("waiting_receivers", info.receivers), ("waiting_senders", info.senders),
            ], [("closed", info.end != nil), ("aborted", info.end == .aborted)]
        )
    }

    // MARK: An end with a reason

    /// Drops what is queued; the first reason stays.
    func abort(_ why: AbortReason, origin: Origin) {
        reason.withLock { if $0 == nil { $0 = why } }
        queue.abort(origin: origin)
    }

    /// Why it was aborted.
    var abortReason: AbortReason? { reason.withLock { $0 } }
}

extension ByteChannel.Handles {
    fileprivate func read(_ env: EnvPointer?) -> Term? {
        if reference.isEmpty { return nil }
        var term: Term = 0
        let size = reference.withUnsafeBufferPointer {
            enif_binary_to_term(env, UnsafeMutablePointer(mutating: $0.baseAddress), $0.count, &term, 0)
        }
        return size != 0 && resourceTypes.channel.object(env, term) != nil ? term : nil
    }

    fileprivate mutating func write(_ env: EnvPointer?, _ term: Term) {
        var external = ErlNifBinary()
        guard enif_term_to_binary(env, term, &external) != 0 else { return reference = [] }
        reference = Array(UnsafeBufferPointer(start: external.data, count: external.size))
        enif_release_binary(&external)
    }
}

/// By which Erlang holds a channel.
final class ChannelHandle: Resource, @unchecked Sendable {
    let channel: ByteChannel

    init(_ channel: ByteChannel) { self.channel = channel }

    override func unreferenced(_ env: EnvPointer?) { channel.handleEnded(env) }
}

/// Why a channel was aborted: a term inside the BEAM, in plain python3 an object.
final class AbortReason: Sendable {
    enum Content: @unchecked Sendable {
        case term(Environment.Shared, Term)
        case object(HeldObject)
    }
    let content: Content

    /// Copies a term.
    init(copying term: Term) {
        let environment = Environment()
        let copy = environment.copy(term)
        content = .term(Environment.Shared(environment), copy)
    }

    /// What a Python object is. With the GIL.
    init(_ object: PyPointer, _ state: ModuleState) throws(PythonError) {
        guard hostIsBeam else {
            content = .object(HeldObject(Object(retaining: object), state.leftovers))
            return
        }
        let environment = Environment()
        var encoder = Encoder(env: environment.pointer, state: state)
        let term = try encoder.term(object)
        content = .term(Environment.Shared(environment), term)
    }

    /// In a BEAM.
    func term(_ env: EnvPointer?) -> Term {
        guard case .term(_, let term) = content else { return atoms.undefined }
        return enif_make_copy(env, term)
    }

    /// With the GIL.
    func object(_ state: ModuleState) throws(PythonError) -> Object {
        switch content {
        case .term(let environment, let term):
            do throws(PythonError) {
                return try Decoder(env: environment.pointer, state: state).object(term)
            } catch {
                // What has no form in Python is no reason to hide that it was aborted.
                PyErr_Clear()
                return try TermObject.make(state.termType, term)
            }
        case .object(let held): return held.object(state) ?? Object(owning: newNone())
        }
    }
}

extension Origin {
    /// The BEAM thread that calls, by its environment, which `enif_send` wants of such.
    init(_ env: EnvPointer?) { self.init(word: UInt(bitPattern: env)) }

    /// Nil on a thread of our own or of Python's.
    var env: EnvPointer? { EnvPointer(bitPattern: word) }
}
