import Beam
import Streams

/// The thread that answers calls whose time is over, and gives them up.
///
/// Callers have no timers of their own, which would cost the BEAM more than the rest of a small call's wait:
/// most calls are over long before their time. The thread wakes when the earliest deadline that it knows of
/// passes, and then looks at the calls that still wait.
final class Timekeeper: Sendable {
    static let shared = Timekeeper()

    private let alarm = Alarm()
    /// Its work needs hardly any stack.
    private static let stackSize = 256 << 10

    /// Starts the thread; once in the life of a node.
    func start() throws(Errno) {
        try NativeThread.start(name: "causeway-time", stackSize: Timekeeper.stackSize) {
            Timekeeper.shared.run()
        }
    }

    /// A call was queued that is to be answered by then.
    @inline(__always)
    func expect(_ deadline: Int64) { alarm.set(noLaterThan: deadline) }

    private func run() -> Never {
        let messages = Environment()
        while true {
            alarm.clear()
            var earliest = Int64.max
            for context in ContextRegistry.shared.all {
                let (overdue, next) = context.overdue(at: monotonicNanoseconds())
                for call in overdue where call.cancel() {
                    let result = makeTuple(messages.pointer, atoms.error, atoms.timeout)
                    send(to: call.caller, messages, call.answer(result, in: messages))
                }
                earliest = min(earliest, next)
            }
            alarm.wait(noLaterThan: earliest)
        }
    }
}
