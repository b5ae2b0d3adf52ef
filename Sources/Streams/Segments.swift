/// A first-in first-out queue whose operations cost the same however long it is: nothing in it ever moves.
///
/// It grows and shrinks by segments of fixed size.
struct Segments<Element: Sendable>: Sendable {
    // Of one owner, as the struct is.
    @safe
    private final class Segment: @unchecked Sendable {
        static var size: Int { 256 }
        private let elements = UnsafeMutablePointer<Element>.allocate(capacity: Segment.size)
        /// The elements stand from `first` up to `last`: only these places are initialized.
        private var first = 0
        private var last = 0
        var next: Segment?

        deinit {
            while !isEmpty { _ = takeFirst() }
            unsafe elements.deallocate()
        }

        var isEmpty: Bool { first == last }
        var hasRoom: Bool { last < Segment.size }
        var firstElement: Element { unsafe elements[first] }

        /// Starts anew where it is empty.
        func startAnew() {
            first = 0
            last = 0
        }

        // Each of these wants what the queries above tell.

        func append(_ element: Element) {
            unsafe (elements + last).initialize(to: element)
            last += 1
        }

        func takeFirst() -> Element {
            defer { first += 1 }
            return unsafe (elements + first).move()
        }
    }

    private var head: Segment?
    private var tail: Segment?
    /// One segment that is empty now, so that a short queue asks for no memory.
    private var spare: Segment?
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }
    var first: Element? { isEmpty ? nil : head?.firstElement }

    mutating func append(_ element: Element) {
        if let tail, tail.hasRoom {
            tail.append(element)
        } else {
            let segment = emptySegment()
            segment.append(element)
            tail?.next = segment
            tail = segment
            if head == nil { head = segment }
        }
        count += 1
    }

    mutating func popFirst() -> Element? {
        guard count > 0, let segment = head else { return nil }
        let element = segment.takeFirst()
        count -= 1
        if segment.isEmpty {
            head = segment.next
            if head == nil { tail = nil }
            segment.next = nil
            spare = segment
        }
        return element
    }

    private mutating func emptySegment() -> Segment {
        guard let segment = spare else { return Segment() }
        spare = nil
        segment.startAnew()
        return segment
    }

    /// Gives all elements to the caller.
    mutating func takeAll() -> Segments {
        defer { self = Segments() }
        return self
    }

    /// Ends all elements one by one: the segments would end each other, as deep as the queue is long.
    mutating func removeAll() { while popFirst() != nil {} }
}
