import Synchronization

/// The contexts that have a thread: all of this node, at which the timekeeper looks, or those of an interpreter,
/// of which one can be woken for work that any can do.
final class ContextRegistry: Sendable {
    /// All of this node.
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

    /// Wakes one of them, rather one that runs no call; false where there is none.
    func ringOne() -> Bool {
        let one = contexts.withLock { contexts in
            contexts.values.first { !$0.isBusy.load(ordering: .relaxed) } ?? contexts.values.first
        }
        guard let one else { return false }
        one.doorbell.ring()
        return true
    }
}
