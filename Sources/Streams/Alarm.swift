import Synchronization

/// When a thread that looks after deadlines must look next: any thread may make that sooner.
///
/// The thread first clears the alarm, then looks at everything that has a deadline, and waits for the earliest.
/// Who adds something with a deadline first adds it, then sets the alarm. Both sides are
/// sequentially consistent, so that either the look finds what was added, or the alarm is sooner.
public final class Alarm: Sendable {
    private let time = Atomic<Int64>(.max)
    private let bell = FutexWord(0)

    /// An alarm that is not set.
    public init() {}

    /// Makes the alarm ring at a time of the monotonic clock, unless it is set to an earlier one. Costs one load
    /// where it is.
    @inline(__always)
    public func set(noLaterThan wanted: Int64) {
        if wanted < time.load(ordering: .sequentiallyConsistent), advance(to: wanted), bell.exchange(1) == 0 {
            bell.wake()
        }
    }

    /// False where it was set to an earlier time meanwhile.
    private func advance(to wanted: Int64) -> Bool {
        time.min(wanted, ordering: .sequentiallyConsistent).oldValue > wanted
    }

    /// Forgets what it was set to. For the thread that is about to look.
    public func clear() {
        bell.store(0)
        time.store(.max, ordering: .sequentiallyConsistent)
    }

    /// Sleeps until this time, or until the alarm is set to a sooner one. May return early.
    public func wait(noLaterThan wanted: Int64) {
        _ = advance(to: wanted)
        let time = time.load(ordering: .sequentiallyConsistent)
        if time == .max { return bell.wait(while: 0) }
        let left = time - monotonicNanoseconds()
        if left > 0 { bell.wait(while: 0, nanoseconds: left) }
    }
}
