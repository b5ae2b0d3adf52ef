import Beam
import CErlNif
import CPython
import Python
import Synchronization

/// The items of a stream on their way from Python to the process that relays them to the consumer.
///
/// That process is told when there is something, and takes all that is there by then: an item goes on at once, and
/// many that come quickly go together. A message for each, from a thread that is no scheduler's, costs the BEAM three
/// times as much as the rest of the way.
///
/// Items are made on the context's thread, with the GIL, and copied by the relay, at the same time: what is in an
/// environment stays where it is until that is cleared.
final class StreamOutbox: Resource, @unchecked Sendable {
    /// How many are taken by one NIF.
    private static let atOnce = 256

    private struct Contents {
        var items: [Term] = []
        var taken = 0
        /// The relay knows that there is something, and has not seen yet that all is taken.
        var isAnnounced = false
        var isCopying = false
        /// An item is being made in the environment.
        var isAdding = false
    }

    private let contents = Mutex(Contents())
    private let environment = Environment()
    private let announcement = Environment()

    /// Adds an item, and tells the relay where it does not know of any. False when that has ended.
    func add(_ item: PyPointer, to relay: ErlNifPid, _ state: ModuleState) throws(PythonError) -> Bool {
        contents.withLock { c in
            forgetTaken(&c)
            c.isAdding = true
        }
        var encoder = Encoder(env: environment.pointer, state: state)
        let term: Term
        do throws(PythonError) { term = try encoder.term(item) } catch {
            contents.withLock { c in c.isAdding = false }
            throw error
        }
        let wasAnnounced = contents.withLock { c in
            c.isAdding = false
            c.items.append(term)
            defer { c.isAnnounced = true }
            return c.isAnnounced
        }
        return wasAnnounced || send(to: relay, announcement, atoms.items)
    }

    /// The next items, copied for the relay; none when all are taken, and then a next one will be told of.
    func take(_ env: EnvPointer?) -> Term {
        let next = contents.withLock { c in
            let next = Array(c.items[c.taken...].prefix(StreamOutbox.atOnce))
            c.taken += next.count
            c.isAnnounced = !next.isEmpty
            c.isCopying = !next.isEmpty
            if next.isEmpty { forgetTaken(&c) }
            return next
        }
        guard !next.isEmpty else { return enif_make_list_from_array(env, nil, 0) }
        let copies = next.map { enif_make_copy(env, $0) }
        contents.withLock { c in c.isCopying = false }
        return enif_make_list_from_array(env, copies, UInt32(truncatingIfNeeded: copies.count))
    }

    /// Frees what the relay has copied, as soon as that is all there was: it may hold objects of Python, and channels.
    /// Under the lock, which keeps a next item from being made meanwhile.
    private func forgetTaken(_ c: inout Contents) {
        guard c.taken == c.items.count, c.taken > 0, !c.isCopying, !c.isAdding else { return }
        c.items.removeAll(keepingCapacity: true)
        c.taken = 0
        environment.clear()
    }
}
