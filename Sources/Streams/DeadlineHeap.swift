/// Which of many things has the earliest deadline. Those that are over before are not taken out: they are skipped when
/// their time has come, or thrown away when they are most.
public struct DeadlineHeap: Sendable {
    private struct Entry: Sendable {
        let deadline: Int64
        let key: UInt64
    }

    private var entries: [Entry] = []

    /// No deadlines.
    public init() {}

    /// How many there are, with those that are over.
    public var count: Int { entries.count }

    /// The earliest; .max where there is none.
    public var first: Int64 { entries.first?.deadline ?? .max }

    /// Adds one.
    public mutating func insert(_ deadline: Int64, _ key: UInt64) {
        entries.append(Entry(deadline: deadline, key: key))
        var index = entries.count - 1
        while index > 0, case let parent = (index - 1) / 2, entries[parent].deadline > deadline {
            entries.swapAt(parent, index)
            index = parent
        }
    }

    /// Takes out one that is not after a time; nil where none is.
    public mutating func popFirst(before time: Int64) -> UInt64? {
        guard let top = entries.first, top.deadline <= time, let last = entries.popLast() else { return nil }
        if !entries.isEmpty {
            entries[0] = last
            sift(0)
        }
        return top.key
    }

    /// Keeps only what is not over.
    public mutating func keep(where isWanted: (UInt64) -> Bool) {
        entries.removeAll { !isWanted($0.key) }
        for index in stride(from: entries.count / 2 - 1, through: 0, by: -1) { sift(index) }
    }

    private mutating func sift(_ start: Int) {
        var index = start
        while true {
            var least = index
            for child in [2 * index + 1, 2 * index + 2]
            where child < entries.count && entries[child].deadline < entries[least].deadline {
                least = child
            }
            if least == index { return }
            entries.swapAt(least, index)
            index = least
        }
    }
}
