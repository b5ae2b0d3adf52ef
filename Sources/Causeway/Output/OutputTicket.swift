import Beam
import CErlNif
import Python
import Streams
import Synchronization

/// A question of a thread of Python to the Erlang process `py_output`: is what I have written on its way?
///
/// The message holds it by a term. Where that is gone without an answer, as when the process has died, nobody waits for
/// one.
final class OutputTicket: Resource, @unchecked Sendable {
    private let state = FutexWord(0)
    /// The context whose thread waits; nil for any other thread of Python.
    private let context: Context?
    /// What is to be done then, where no thread waits.
    private let body: Mutex<(@Sendable (EnvPointer?) -> Void)?>

    init(context: Context?) {
        self.context = context
        body = Mutex(nil)
    }

    /// Has a body run with the answer, once; it is given the environment to send from.
    init(whenTaken body: @escaping @Sendable (EnvPointer?) -> Void) {
        context = nil
        self.body = Mutex(body)
    }

    /// Whether the answer is there, or none will come.
    var isTaken: Bool { state.value != 0 }

    /// The answer. From a NIF.
    func taken(_ env: EnvPointer?) {
        state.store(1)
        if let context { context.doorbell.ring() } else { state.wake() }
        body.withLock { $0.take() }?(env)
    }

    override func unreferenced(_ env: EnvPointer?) {
        // Also on a thread of our own, where nothing may be sent from an environment.
        taken(enif_thread_type() == ERL_NIF_THR_UNDEFINED ? nil : env)
    }

    /// Waits for the answer, without the GIL. On a context's thread an interruption ends the wait.
    func wait() {
        guard let context else {
            while !isTaken { state.wait(while: 0) }
            return
        }
        let bell = context.doorbell
        while !isTaken, !context.isInterruptedOrEnding {
            bell.willPark()
            if isTaken || context.isInterruptedOrEnding { return bell.didWake() }
            bell.park()
        }
    }
}

extension Context {
    fileprivate var isInterruptedOrEnding: Bool { isEnding || isInterrupted.load(ordering: .relaxed) }
}
