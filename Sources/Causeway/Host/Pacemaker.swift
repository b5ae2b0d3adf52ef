import CPython
import Streams
import Synchronization

/// Lets the interpreters that share one GIL take turns, on Python 3.11 and 3.12.
///
/// There a thread that waits for the GIL asks its own interpreter to let go of it, not the one whose thread has it:
/// code that computes in one interpreter would keep all others waiting. So, while a context takes long, the janitor
/// of each of them asks its own: it takes the GIL and releases it. Python 3.13 asks the right one by itself.
final class Pacemaker: Sendable {
    static let shared = Pacemaker()

    /// Whether contexts have to say when they are at work: once there are two interpreters with one GIL.
    static let isNeeded = Atomic<Bool>(false)

    private enum State {
        static let asleep: UInt32 = 0
        static let awake: UInt32 = 1
    }

    /// How long a thread has the GIL at most while others wait, in nanoseconds, as in Python itself.
    private static let beat: Int64 = 5_000_000
    /// Its work needs hardly any stack.
    private static let stackSize = 256 << 10

    private let interpreters = Mutex<[Interpreter]>([])
    private let state = FutexWord(State.awake)

    /// Another interpreter shares the GIL of the main one.
    func add(_ interpreter: Interpreter, beside main: Interpreter) throws(Errno) {
        guard cpython_running_version() < 0x030D_0000 else { return }
        let isFirst = interpreters.withLock { interpreters in
            defer { interpreters += interpreters.isEmpty ? [main, interpreter] : [interpreter] }
            return interpreters.isEmpty
        }
        guard isFirst else { return }
        try NativeThread.start(name: "causeway-pace", stackSize: Pacemaker.stackSize) {
            Pacemaker.shared.run()
        }
        Pacemaker.isNeeded.store(true, ordering: .sequentiallyConsistent)
    }

    /// A context is at work, or waits for the GIL.
    @inline(__always)
    func wake() {
        if state.value == State.awake { return }
        if state.exchange(State.awake) == State.asleep { state.wake() }
    }

    private func run() -> Never {
        var before: [ObjectIdentifier: Int] = [:]
        while true {
            let now = turnsAtWork()
            if now.isEmpty {
                // Announced first, looked at afterwards: who is at work before sees us awake and does not wake us.
                state.store(State.asleep)
                if turnsAtWork().isEmpty { state.wait(while: State.asleep) }
                state.store(State.awake)
            } else if now.contains(where: { before[$0.key] == $0.value }) {
                for interpreter in interpreters.withLock({ $0 }) where !interpreter.isIdle {
                    interpreter.state.janitor.askForGIL()
                }
            }
            before = now
            state.wait(while: State.awake, nanoseconds: Pacemaker.beat)
        }
    }

    /// The contexts at work, and in which turn: the same turn twice is a long one.
    private func turnsAtWork() -> [ObjectIdentifier: Int] {
        var turns: [ObjectIdentifier: Int] = [:]
        for context in ContextRegistry.shared.all
        where context.isAtWork.load(ordering: .sequentiallyConsistent) {
            turns[ObjectIdentifier(context)] = context.statistics.batches.load(ordering: .relaxed)
        }
        return turns
    }
}
