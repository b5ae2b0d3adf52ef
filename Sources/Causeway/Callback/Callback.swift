import Beam
import CErlNif
import Streams
import Synchronization

/// One call of an Erlang function by Python, from when it is sent until its result is taken or nobody waits
/// for it any more.
///
/// The process that runs the function holds it by a term, and it monitors that process: where that ends without an
/// answer, whoever waits is told. The end of the term alone would come when the server, which has handed it
/// on, next collects its garbage.
final class Callback: Resource, @unchecked Sendable {
    private enum State {
        static let waiting: UInt32 = 0
        /// A NIF is writing the answer.
        static let answering: UInt32 = 1
        static let answered: UInt32 = 2
        /// The process has ended without one.
        static let lost: UInt32 = 3
        /// Python does not wait any more.
        static let abandoned: UInt32 = 4
    }

    /// How it ended.
    enum Outcome { case answered, lost }

    /// Where the answer lives. Written by the NIF before the state says so, read by Python's thread afterwards.
    let environment = Environment()
    private(set) var answer: Term = 0
    private let state = FutexWord(State.waiting)
    /// The context whose thread waits; nil for any other thread of Python, which sleeps on `state`.
    private let context: Context?
    private let runner = Mutex<ErlNifPid?>(nil)
    /// Tells an event loop, where a task waits.
    private let notify: (@Sendable () -> Void)?

    init(context: Context?, notify: (@Sendable () -> Void)? = nil) {
        self.context = context
        self.notify = notify
    }

    /// Nil while there is neither answer nor hope to be told that there is none.
    var outcome: Outcome? {
        switch state.value {
        case State.answered: .answered
        case State.lost: .lost
        default: nil
        }
    }

    /// Sleeps until it is over. For threads that no context waits on, without the GIL.
    func sleep() {
        // Read once: a look at what it became meanwhile would sleep on the end itself.
        var seen = state.value
        while seen == State.waiting || seen == State.answering {
            state.wait(while: seen)
            seen = state.value
        }
    }

    /// Python does not wait any more: returns the process to be told, if it runs.
    func abandon() -> ErlNifPid? {
        guard state.compareExchange(expected: State.waiting, desired: State.abandoned) else { return nil }
        return runner.withLock { $0 }
    }

    /// The process begins; false when nobody waits for it any more. From its NIF.
    func begin(_ env: EnvPointer?, _ process: ErlNifPid) -> Bool {
        runner.withLock { $0 = process }
        return state.value == State.waiting && monitor(env, process)
    }

    /// The process answers, once. From its NIF.
    func answer(with result: Term) {
        guard state.compareExchange(expected: State.waiting, desired: State.answering) else { return }
        answer = environment.copy(result)
        finish(State.answered)
    }

    /// Python has taken the answer: a term of it may live on, as garbage, and the answer may be large.
    func forgetAnswer() { environment.clear() }

    override func monitoredProcessDown(_ env: EnvPointer?) { lose() }

    // The last term is gone: nobody can answer any more.
    override func unreferenced(_ env: EnvPointer?) { lose() }

    private func lose() {
        guard state.compareExchange(expected: State.waiting, desired: State.answering) else { return }
        finish(State.lost)
    }

    private func finish(_ end: UInt32) {
        state.store(end)
        if let notify { return notify() }
        if let context { context.doorbell.ring() } else { state.wake() }
    }
}
