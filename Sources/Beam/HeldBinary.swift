import CErlNif
import Synchronization

/// A large binary that is held outside of any environment, without a copy. Any thread may let go of it.
///
/// An environment would hold one as well, but takes 2.4 KB for that; an I/O queue of the BEAM takes 0.3 KB.
public final class HeldBinary: @unchecked Sendable {
    private let queue: OpaquePointer
    /// Its bytes, valid as long as this lives.
    public let bytes: UnsafeRawBufferPointer

    /// Nil for what is no binary or too small to be shared, and when memory is short. The corresponding C
    /// functions are `enif_ioq_create` and `enif_ioq_enqv`.
    public init?(_ env: EnvPointer?, _ binary: Term) {
        guard let queue = SpareQueues.take() ?? enif_ioq_create(ERL_NIF_IOQ_NORMAL) else { return nil }
        var vector = ErlNifIOVec()
        var rest: Term = 0
        let list = enif_make_list_from_array(env, [binary], 1)
        let isQueued = withUnsafeMutablePointer(to: &vector) { pointer in
            var vector: UnsafeMutablePointer<ErlNifIOVec>? = pointer
            return enif_inspect_iovec(env, 1, list, &rest, &vector) != 0
                && enif_ioq_enqv(queue, vector, 0) != 0
        }
        var count: Int32 = 0
        guard isQueued, let pieces = enif_ioq_peek(queue, &count), count == 1 else {
            enif_ioq_destroy(queue)
            return nil
        }
        self.queue = queue
        bytes = UnsafeRawBufferPointer(start: pieces[0].iov_base, count: pieces[0].iov_len)
    }

    deinit {
        let isEmpty = enif_ioq_deq(queue, bytes.count, nil) != 0
        if !isEmpty || !SpareQueues.keep(queue) { enif_ioq_destroy(queue) }
    }

    /// The binary as a term, which shares its memory. The corresponding C function is `enif_ioq_peek_head`.
    public func term(_ env: EnvPointer?) -> Term? {
        var term: Term = 0
        return enif_ioq_peek_head(env, queue, nil, &term) != 0 ? term : nil
    }
}

/// I/O queues that are empty now, to be used again. Memory of the BEAM that one thread has asked for and another gives
/// back is taken there by a message, which costs more than all else that is done with a binary.
private enum SpareQueues {
    private static let count = 64
    // Any thread may use a queue that it has alone.
    private struct Spares: @unchecked Sendable { var queues: [OpaquePointer] = [] }
    private static let spares = Mutex(Spares())

    static func take() -> OpaquePointer? { spares.withLock { $0.queues.popLast() } }

    /// False where there are enough.
    static func keep(_ queue: OpaquePointer) -> Bool {
        spares.withLock { spares in
            guard spares.queues.count < count else { return false }
            spares.queues.append(queue)
            return true
        }
    }
}
