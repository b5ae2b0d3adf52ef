/// A first-in first-out queue whose operations cost the same however long it is: nothing in it ever moves.
///
/// It grows and shrinks by segments of fixed size.
struct Segments<Element: Sendable>: Sendable {
    // Of one owner, as the struct is.
    private final class Segment: @unchecked Sendable {
        static var size: Int { 256 }
        var elements: [Element?] = Array(repeating: nil, count: size)
        /// The elements stand from `first` up to `last`.
        var first: Int
        var last: Int
        var next: Segment?

        init(at place: Int) {
            first = place
            last = place
        }
    }

    private var head: Segment?
    private var tail: Segment?
    /// One segment that is empty now, so that a short queue asks for no memory.
    private var spare: Segment?
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }
    var first: Element? { head.flatMap { $0.first < $0.last ? $0.elements[$0.first] : nil } }

    mutating func append(_ element: Element) {
        let segment: Segment
        if let tail, tail.last < Segment.size {
            segment = tail
        } else {
            segment = emptySegment(at: 0)
            tail?.next = segment
            tail = segment
            if head == nil { head = segment }
        }
        segment.elements[segment.last] = element
        segment.last += 1
        count += 1
    }

    /// Puts an element before all others.
    mutating func prepend(_ element: Element) {
        let segment: Segment
        if let head, head.first > 0 {
            segment = head
        } else {
            segment = emptySegment(at: Segment.size)
            segment.next = head
            head = segment
            if tail == nil { tail = segment }
        }
        segment.first -= 1
        segment.elements[segment.first] = element
        count += 1
    }

    mutating func popFirst() -> Element? {
        guard let segment = head, segment.first < segment.last else { return nil }
        let element = segment.elements[segment.first]
        segment.elements[segment.first] = nil
        segment.first += 1
        count -= 1
        if segment.first == segment.last {
            head = segment.next
            if head == nil { tail = nil }
            segment.next = nil
            spare = segment
        }
        return element
    }

    private mutating func emptySegment(at place: Int) -> Segment {
        guard let segment = spare else { return Segment(at: place) }
        spare = nil
        segment.first = place
        segment.last = place
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
