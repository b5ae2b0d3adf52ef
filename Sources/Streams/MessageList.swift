/// Messages in the order in which they were sent, those included that were taken and then given back.
struct MessageList: Sendable {
    private var queued = Segments<Payload>()
    /// What was given back, the latest first. All of it was sent before what is queued.
    private var returned: [Payload] = []

    var count: Int { queued.count + returned.count }
    var isEmpty: Bool { queued.isEmpty && returned.isEmpty }
    var first: Payload? { returned.last ?? queued.first }

    mutating func append(_ message: Payload) { queued.append(message) }

    mutating func popFirst() -> Payload? { returned.isEmpty ? queued.popFirst() : returned.popLast() }

    /// Takes a message back, by its number among all that were sent: several may come back in any order, when all who
    /// wait are cancelled.
    mutating func putBack(_ message: Payload) {
        var low = 0
        var high = returned.count
        while low < high {
            let middle = low + (high - low) / 2
            if returned[middle].number > message.number { low = middle + 1 } else { high = middle }
        }
        returned.insert(message, at: low)
    }

    /// Gives all to the caller.
    mutating func takeAll() -> MessageList {
        defer { self = MessageList() }
        return self
    }

    /// Ends all one by one.
    mutating func removeAll() {
        returned = []
        queued.removeAll()
    }
}
