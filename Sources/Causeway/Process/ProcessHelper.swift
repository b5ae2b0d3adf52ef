import Beam
import CErlNif
import Streams
import Synchronization

/// The helper of this node, `causeway-spawn`: started when it is needed, and again where it was killed.
final class ProcessHelper: Sendable {
    static let shared = ProcessHelper()

    private struct Helpers {
        var current: SpawnHelper?
        /// Whose ends are to be waited for.
        var gone: [SpawnHelper] = []
    }

    private let helpers = Mutex(Helpers())
    /// Starting a process needs hardly any stack.
    private static let stackSize = 128 << 10

    /// Nil where there is none that is known to run.
    var current: SpawnHelper? { helpers.withLock { $0.current } }

    /// A helper was found to be gone.
    func lost(_ helper: SpawnHelper) {
        helpers.withLock { helpers in
            guard helpers.current === helper else { return }
            helpers.gone.append(helper)
            helpers.current = nil
        }
    }

    /// Starts a helper on a thread of its own: a scheduler would have to wait for it. The requester is told
    /// `{causeway, {helper, ok | {error, Reason}}}`.
    func start(path: String, requester: ErlNifPid) throws(Errno) {
        try NativeThread.start(name: "causeway-spawn", stackSize: ProcessHelper.stackSize) {
            let messages = Environment()
            let result = ProcessHelper.shared.start(path: path, messages.pointer)
            let answer = makeTuple(messages.pointer, atoms.helper, result)
            send(to: requester, messages, makeTuple(messages.pointer, atoms.causeway, answer))
        }
    }

    private func start(path: String, _ env: EnvPointer?) -> Term {
        // Another has asked for it at the same time.
        if current != nil { return atoms.ok }
        do throws(Errno) {
            let helper = try SpawnHelper(path: path)
            let gone = helpers.withLock { helpers in
                defer { helpers = Helpers(current: helper) }
                return helpers.gone
            }
            for helper in gone { helper.reap() }
            return atoms.ok
        } catch { return makeError(env, error) }
    }
}
