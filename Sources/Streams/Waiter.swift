import Synchronization

/// What the host says about the thread on which it does something to a queue, for who is woken thereby: a word
/// whose meaning only the host knows.
public struct Origin: Sendable {
    /// The word.
    public let word: UInt
    /// Nothing is said.
    public static let none = Origin(word: 0)

    /// Says something.
    public init(word: UInt) { self.word = word }
}

/// Somebody who waits for a byte queue, of whatever host: how it is woken is its own affair.
///
/// Its fields belong to the queue, under whose lock they change.
public final class Waiter: @unchecked Sendable {
    /// What it waits for.
    public enum Purpose: Sendable {
        /// The next message, which is kept for it from then on.
        case receive
        /// Room for its message.
        case send
        /// Its turn to send its message, which is sent by `ByteQueue.finish` and not before: who cancels it until
        /// then has not sent it. Those after it wait so long.
        case offer
        /// To be told that there is something to receive, which it does not get thereby.
        case readable
        /// To be told that there is room.
        case writable
    }

    /// What became of it.
    public enum Outcome: Sendable {
        case message(Payload), sent, ready, closed, aborted
        /// There is a message, of so many bytes, for which it has no room: that stays.
        case tooLarge(Int)
    }

    enum State {
        case waiting
        case settled(Outcome)
        case over
    }

    /// What it waits for.
    public let purpose: Purpose
    /// What it sends, until that is on its way or is given up.
    private(set) var message: Payload?
    /// How large a message it receives.
    let room: Int
    private let wakeUp: @Sendable (_ origin: Origin) -> Void
    private let settled = Atomic<Bool>(false)
    private(set) var state = State.waiting
    var isListed = false
    // The list that it waits in.
    var next: Waiter?
    weak var previous: Waiter?
    /// The chain of those to be woken.
    var nextWoken: Waiter?

    /// `wakeUp` is called once, without the queue's lock, on the thread that has settled it. `origin` is what the
    /// host has said there about that thread.
    public init(
        for purpose: Purpose, message: Payload? = nil, room: Int = .max,
        wakeUp: @escaping @Sendable (_ origin: Origin) -> Void
    ) {
        self.purpose = purpose
        self.message = message
        self.room = room
        self.wakeUp = wakeUp
    }

    /// Whether `ByteQueue.finish` has something to tell. From any thread.
    public var isSettled: Bool { settled.load(ordering: .acquiring) }

    func settle(_ outcome: Outcome) {
        state = .settled(outcome)
        if case .sent = outcome { message = nil }
        settled.store(true, ordering: .releasing)
    }

    /// Nobody asks any more. Returns what it was, and what it has not sent.
    func end() -> (state: State, unsent: Payload?) {
        defer {
            state = .over
            message = nil
        }
        return (state, message)
    }

    func wake(_ origin: Origin) { wakeUp(origin) }
}

/// Those who wait, in the order in which they came. Anyone can leave from the middle.
struct WaiterList {
    private(set) var first: Waiter?
    private var last: Waiter?
    private(set) var count = 0

    mutating func append(_ waiter: Waiter) {
        waiter.previous = last
        waiter.next = nil
        waiter.isListed = true
        if let last { last.next = waiter } else { first = waiter }
        last = waiter
        count += 1
    }

    mutating func remove(_ waiter: Waiter) {
        guard waiter.isListed else { return }
        if let previous = waiter.previous { previous.next = waiter.next } else { first = waiter.next }
        if let next = waiter.next { next.previous = waiter.previous } else { last = waiter.previous }
        waiter.next = nil
        waiter.previous = nil
        waiter.isListed = false
        count -= 1
    }

    mutating func popFirst() -> Waiter? {
        guard let waiter = first else { return nil }
        remove(waiter)
        return waiter
    }

    mutating func removeAll() { while popFirst() != nil {} }
}

/// Waiters that were settled under the lock and are woken after it.
struct Woken {
    private var first: Waiter?
    private var last: Waiter?

    mutating func settle(_ waiter: Waiter, _ outcome: Waiter.Outcome) {
        let isAwake = waiter.isSettled
        waiter.settle(outcome)
        // What was offered before it had its turn was told so already.
        if isAwake { return }
        if let last { last.nextWoken = waiter } else { first = waiter }
        last = waiter
    }

    consuming func wake(_ origin: Origin) {
        var waiter = first
        while let current = waiter {
            waiter = current.nextWoken
            current.nextWoken = nil
            current.wake(origin)
        }
    }
}
