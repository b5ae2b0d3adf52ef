import CPlatform
import Glibc
import Synchronization

/// How a thread with a mailbox and a poller waits for both in one place, and is woken at the least cost.
///
/// The thread is in one of three states. *Running*: it will look at its mailbox before it waits, so a
/// producer does nothing. *Polling*: it waits in the poller, and a producer writes to an eventfd there.
/// *Parked*: it sleeps on a futex, and a producer wakes that. A producer first pushes, then rings; the
/// thread first announces how it is about to wait, then looks at its mailbox once more. Both sides are
/// sequentially consistent, so one of them always sees the other.
public final class Doorbell: Sendable {
    private enum State {
        static let running: UInt32 = 0
        static let polling: UInt32 = 1
        static let parked: UInt32 = 2
    }

    private let state = FutexWord(State.running)
    // -1 until the thread has a poller: a thread without one only parks.
    private let bell = Atomic<Int32>(-1)

    /// A bell of a thread that runs.
    public init() {}

    deinit {
        let fd = bell.load(ordering: .relaxed)
        if fd >= 0 { _ = Glibc.close(fd) }
    }

    /// The eventfd to put into the poller, made on the first call. Not for two threads at once. Throws
    /// `EMFILE` where no number is left. The corresponding C function is `eventfd`.
    public func descriptor() throws(Errno) -> Int32 {
        let known = bell.load(ordering: .relaxed)
        if known >= 0 { return known }
        let made = try retryingOnInterrupt { cplatform_eventfd() }
        bell.store(made, ordering: .sequentiallyConsistent)
        return made
    }

    /// Wakes the thread if it waits. For any thread, after it has pushed.
    public func ring() {
        if state.value == State.running { return }
        switch state.exchange(State.running) {
        case State.polling: wakePoller()
        case State.parked: state.wake()
        default: break
        }
    }

    /// Announces a wait in the poller. The thread then looks at its mailbox once more before it waits.
    public func willPoll() { state.store(State.polling) }

    /// Announces sleep. The thread then looks at its mailbox once more before `park()`.
    public func willPark() { state.store(State.parked) }

    /// Sleeps until somebody rings, at most `nanoseconds` where given.
    public func park(nanoseconds: Int64? = nil) {
        while state.value == State.parked {
            state.wait(while: State.parked, nanoseconds: nanoseconds)
            if nanoseconds != nil { break }
        }
        state.store(State.running)
    }

    /// Announces that the thread runs again and will look at its mailbox.
    public func didWake() { state.store(State.running) }

    /// Empties the eventfd after the poller has reported it.
    public func silence() {
        var count: UInt64 = 0
        _ = unsafe Glibc.read(bell.load(ordering: .relaxed), &count, 8)
    }

    private func wakePoller() {
        var one: UInt64 = 1
        // It can only fail with EAGAIN, when the counter is full and the thread is woken anyway.
        _ = unsafe Glibc.write(bell.load(ordering: .sequentiallyConsistent), &one, 8)
    }
}
