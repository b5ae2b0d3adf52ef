import Beam
import CErlNif
import Synchronization

/// The Erlang process that starts the functions which Python calls, and their names.
final class CallbackServer: Sendable {
    static let shared = CallbackServer()

    private struct Registered {
        var process: ErlNifPid?
        var names: Set<String> = []
    }

    private let registered = Mutex(Registered())

    /// The server has started, or its functions have changed.
    func update(_ process: ErlNifPid, names: Set<String>) {
        registered.withLock { $0 = Registered(process: process, names: names) }
    }

    /// Whether there is a function of that name.
    func has(_ name: String) -> Bool { registered.withLock { $0.names.contains(name) } }

    /// The names of all functions.
    var names: [String] { registered.withLock { $0.names.sorted() } }

    /// Sends it a message; false where it does not run.
    func send(_ environment: borrowing Environment, _ message: Term) -> Bool {
        guard let process = registered.withLock({ $0.process }) else { return false }
        return Beam.send(to: process, environment, message)
    }
}
