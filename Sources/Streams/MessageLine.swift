/// The messages of a queue, in the order in which they were sent: those that were given back come first, each at
/// its own place.
struct MessageLine: Sendable {
    private var queued = Segments<Payload>()
    /// The oldest is the last, so that taking it moves nothing.
    private var returned: [Payload] = []

    var isEmpty: Bool { returned.isEmpty && queued.isEmpty }
    var count: Int { returned.count + queued.count }
    var first: Payload? { returned.last ?? queued.first }

    mutating func append(_ message: Payload) { queued.append(message) }

    mutating func popFirst() -> Payload? { returned.popLast() ?? queued.popFirst() }

    /// Gives a message back that was taken: it goes before all that were sent after it.
    mutating func putBack(_ message: Payload) {
        var low = 0
        var high = returned.count
        while low < high {
            let middle = low + (high - low) / 2
            if returned[middle].place > message.place { low = middle + 1 } else { high = middle }
        }
        returned.insert(message, at: low)
    }

    /// Gives all messages to the caller.
    mutating func takeAll() -> MessageLine {
        defer { self = MessageLine() }
        return self
    }

    /// Ends all messages one by one.
    mutating func removeAll() {
        returned.removeAll()
        queued.removeAll()
    }
}
