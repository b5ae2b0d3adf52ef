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
        private(set) var first: Int
        private(set) var last: Int
        var next: Segment?

        init(at place: Int) {
            first = place
            last = place
        }

        deinit {
            while !isEmpty { _ = takeFirst() }
            unsafe elements.deallocate()
        }

        var isEmpty: Bool { first == last }
        var hasRoomBefore: Bool { first > 0 }
        var hasRoomAfter: Bool { last < Segment.size }
        var firstElement: Element { unsafe elements[first] }

        /// Starts anew where it is empty.
        func move(to place: Int) {
            first = place
            last = place
        }

        // Each of these wants what the queries above tell.

        func append(_ element: Element) {
            unsafe (elements + last).initialize(to: element)
            last += 1
        }

        func prepend(_ element: Element) {
            first -= 1
            unsafe (elements + first).initialize(to: element)
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
        if let tail, tail.hasRoomAfter {
            tail.append(element)
        } else {
            let segment = emptySegment(at: 0)
            segment.append(element)
            tail?.next = segment
            tail = segment
            if head == nil { head = segment }
        }
        count += 1
    }

    /// Puts an element before all others.
    mutating func prepend(_ element: Element) {
        if let head, head.hasRoomBefore {
            head.prepend(element)
        } else {
            let segment = emptySegment(at: Segment.size)
            segment.prepend(element)
            segment.next = head
            head = segment
            if tail == nil { tail = segment }
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

    private mutating func emptySegment(at place: Int) -> Segment {
        guard let segment = spare else { return Segment(at: place) }
        spare = nil
        segment.move(to: place)
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
