import Synchronization

/// The contexts that have a thread: one of them can be woken for work that any can do, and the timekeeper looks
/// at all of them.
final class ContextRegistry: Sendable {
    static let shared = ContextRegistry()

    private let contexts = Mutex<[ObjectIdentifier: Context]>([:])

    /// A thread has started.
    func add(_ context: Context) { contexts.withLock { $0[ObjectIdentifier(context)] = context } }

    /// A thread has ended.
    func remove(_ context: Context) { contexts.withLock { $0[ObjectIdentifier(context)] = nil } }

    /// All of them.
    var all: [Context] { contexts.withLock { Array($0.values) } }

    /// How many there are.
    var count: Int { contexts.withLock { $0.count } }

    /// Wakes one of them, if there is any; otherwise the next that starts will find the work.
    func ringOne() {
        let first = contexts.withLock { $0.values.first }
        first?.doorbell.ring()
    }
}
