import Synchronization

/// A first-in first-out queue from any number of threads to any number of threads, with a limit.
///
/// A `Mutex` and an array: measured at two million messages a second one by one, which a lock-free
/// queue did not better by enough to pay for its complexity.
public final class Mailbox<Element: Sendable>: Sendable {
    @usableFromInline struct Contents {
        // Elements before `first` were taken; the array is made compact when half of it is such.
        @usableFromInline var elements: [Element?] = []
        @usableFromInline var first = 0
        @usableFromInline var inHand: [Element] = []
        @usableFromInline var isClosed = false
        @inlinable init() {}
    }

    @usableFromInline let contents = Mutex(Contents())
    @usableFromInline let waiting = Atomic<Int>(0)
    /// How many elements may wait; more are refused.
    public let limit: Int

    /// An empty mailbox.
    public init(limit: Int) { self.limit = limit }

    /// What became of an element that was pushed.
    public enum Outcome: Sendable { case queued, full, closed }

    /// How many elements wait. Sequentially consistent, and free of the lock.
    @inlinable public var count: Int { waiting.load(ordering: .sequentiallyConsistent) }

    /// Whether nothing waits.
    @inlinable public var isEmpty: Bool { count == 0 }

    /// Adds an element at the end. The caller then rings whoever empties the mailbox.
    @inlinable
    public func push(_ element: Element) -> Outcome {
        contents.withLock { contents in
            if contents.isClosed { return .closed }
            let count = contents.elements.count - contents.first
            if count >= limit { return .full }
            contents.elements.append(element)
            waiting.store(count + 1, ordering: .sequentiallyConsistent)
            return .queued
        }
    }

    /// Takes the oldest element.
    @inlinable
    public func popFirst() -> Element? {
        if isEmpty { return nil }
        return contents.withLock { pop(&$0) }
    }

    /// Takes the oldest element into the hand: it is work that somebody has begun. `close` finds it there,
    /// until `finish` puts it down; work begun on top of other work is put down first.
    @inlinable
    public func takeFirst() -> Element? {
        if isEmpty { return nil }
        return contents.withLock { take(&$0) }
    }

    /// Puts down the element that was taken last, and takes the next where wanted, under one lock.
    @inlinable
    public func finish(takingNext: Bool) -> Element? {
        contents.withLock { contents in
            _ = contents.inHand.popLast()
            return takingNext ? take(&contents) : nil
        }
    }

    @inlinable
    func take(_ contents: inout Contents) -> Element? {
        guard let element = pop(&contents) else { return nil }
        contents.inHand.append(element)
        return element
    }

    @inlinable
    func pop(_ contents: inout Contents) -> Element? {
        guard contents.first < contents.elements.count else { return nil }
        let element = contents.elements[contents.first]
        contents.elements[contents.first] = nil
        contents.first += 1
        if contents.first == contents.elements.count {
            // The room of a usual queue is kept, that of a rush is given back.
            contents.elements.removeAll(keepingCapacity: contents.elements.capacity <= 2048)
            contents.first = 0
        } else if contents.first >= 1024, contents.first * 2 >= contents.elements.count {
            contents.elements.removeFirst(contents.first)
            contents.first = 0
        }
        waiting.store(contents.elements.count - contents.first, ordering: .sequentiallyConsistent)
        return element
    }

    /// The element that was taken last and is not put down yet.
    public var lastInHand: Element? { contents.withLock { $0.inHand.last } }

    /// Shows all elements that are in hand or wait, oldest first, under the lock: the body must be short.
    public func forEach(_ body: (Element) -> Void) {
        contents.withLock { contents in
            for element in contents.inHand { body(element) }
            for element in contents.elements[contents.first...] { if let element { body(element) } }
        }
    }

    /// Takes out what nobody wants any more, wherever it waits. The body must be short: it is called under the lock.
    public func remove(where isUnwanted: (Element) -> Bool) -> [Element] {
        contents.withLock { contents in
            var removed: [Element] = []
            var kept: [Element?] = []
            for element in contents.elements[contents.first...] {
                guard let element else { continue }
                if isUnwanted(element) { removed.append(element) } else { kept.append(element) }
            }
            contents.elements = kept
            contents.first = 0
            waiting.store(kept.count, ordering: .sequentiallyConsistent)
            return removed
        }
    }

    /// Refuses everything from now on, and returns what somebody has in hand and what was still waiting.
    public func close() -> [Element] {
        contents.withLock { contents in
            contents.isClosed = true
            waiting.store(0, ordering: .sequentiallyConsistent)
            let rest = contents.inHand + contents.elements[contents.first...].compactMap { $0 }
            contents.inHand = []
            contents.elements = []
            contents.first = 0
            return rest
        }
    }
}
