import Synchronization

@testable import Streams

/// A waiter that counts how often it is woken.
final class Waiting: Sendable {
    private final class WakeUps: Sendable { let number = Atomic<Int>(0) }

    private let wakeUps = WakeUps()
    private let waiter: Waiter
    private let queue: ByteQueue
    /// Whether there was nothing to wait for.
    let isSettledAtOnce: Bool

    /// Begins to wait.
    init(
        _ queue: ByteQueue, for purpose: Waiter.Purpose, _ message: Payload? = nil, room: Int = .max,
        onWake: @escaping @Sendable (Origin) -> Void = { _ in }
    ) {
        self.queue = queue
        waiter = Waiter(for: purpose, message: message, room: room) { [wakeUps] origin in
            wakeUps.number.add(1, ordering: .sequentiallyConsistent)
            onWake(origin)
        }
        isSettledAtOnce = queue.wait(waiter)
    }

    var timesWoken: Int { wakeUps.number.load(ordering: .sequentiallyConsistent) }
    var isSettled: Bool { waiter.isSettled }

    /// Ends the wait.
    func finish() -> Waiter.Outcome? { queue.finish(waiter) }

    func cancel() { queue.cancel(waiter) }
}

/// What a test compares: outcomes and receipts by name, messages by the number that they hold.
enum Seen: Equatable, CustomStringConvertible {
    case message(Int), tooLarge(Int), sent, busy, ready, empty, closed, aborted, waiting

    init(_ outcome: Waiter.Outcome?) {
        switch outcome {
        case .message(let message): self = .message(message.number)
        case .tooLarge(let size): self = .tooLarge(size)
        case .sent: self = .sent
        case .ready: self = .ready
        case .closed: self = .closed
        case .aborted: self = .aborted
        case nil: self = .waiting
        }
    }

    init(_ receipt: ByteQueue.Receipt) {
        switch receipt {
        case .message(let message): self = .message(message.number)
        case .empty: self = .empty
        case .closed: self = .closed
        case .aborted: self = .aborted
        }
    }

    init(_ sending: ByteQueue.Sending) {
        switch sending {
        case .sent: self = .sent
        case .busy: self = .busy
        case .closed: self = .closed
        case .aborted: self = .aborted
        }
    }

    var description: String {
        switch self {
        case .message(let number): "message \(number)"
        case .tooLarge(let size): "too large: \(size)"
        case .sent: "sent"
        case .busy: "busy"
        case .ready: "ready"
        case .empty: "empty"
        case .closed: "closed"
        case .aborted: "aborted"
        case .waiting: "still waiting"
        }
    }
}

extension ByteQueue {
    func send(_ number: Int, count: Int = 8) -> Seen { Seen(send(Payload(number: number, count: count))) }

    func next() -> Seen { Seen(receive()) }

    /// Takes all that is there.
    func drain() -> [Int] {
        var numbers: [Int] = []
        while case .message(let message) = receive() { numbers.append(message.number) }
        return numbers
    }
}
