import Beam
import CErlNif
import Python
import Streams

/// A question of a thread of Python to the Erlang process `py_output`: is what I have written on its way?
///
/// The message holds it by a term. Where that is gone without an answer, as when the process has died, the
/// thread does not wait for one.
final class OutputTicket: Resource, @unchecked Sendable {
    private let state = FutexWord(0)
    /// The context whose thread waits; nil for any other thread of Python.
    private let context: Context?

    init(context: Context?) { self.context = context }

    /// Whether the answer is there, or none will come.
    var isTaken: Bool { state.value != 0 }

    /// The answer. From a NIF.
    func taken() {
        state.store(1)
        if let context { context.doorbell.ring() } else { state.wake() }
    }

    override func unreferenced(_ env: EnvPointer?) { taken() }

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
