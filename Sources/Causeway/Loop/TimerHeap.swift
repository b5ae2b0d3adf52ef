import Python

/// Handles by the time when they are due, those of one time in their order. Each has a reference that is the heap's.
/// With the GIL.
struct TimerHeap {
    struct Entry {
        /// In seconds, as `loop.time()` has it.
        let when: Double
        let number: UInt64
        let handle: PyPointer

        @inline(__always)
        static func < (one: Entry, other: Entry) -> Bool {
            one.when < other.when || (one.when == other.when && one.number < other.number)
        }
    }

    private(set) var entries: [Entry] = []
    private var last: UInt64 = 0

    var first: Entry? { entries.first }

    /// Takes over a reference.
    mutating func insert(_ handle: PyPointer, at when: Double) {
        last &+= 1
        entries.append(Entry(when: when, number: last, handle: handle))
        var index = entries.count - 1
        while index > 0, case let parent = (index - 1) / 2, entries[index] < entries[parent] {
            entries.swapAt(parent, index)
            index = parent
        }
    }

    /// Gives the reference of the earliest to the caller.
    mutating func popFirst() -> PyPointer? {
        guard let top = entries.first, let last = entries.popLast() else { return nil }
        if !entries.isEmpty {
            entries[0] = last
            sift(0)
        }
        return top.handle
    }

    /// Takes those out that nobody wants any more, and returns them.
    mutating func remove(where isUnwanted: (PyPointer) -> Bool) -> [PyPointer] {
        var removed: [PyPointer] = []
        entries.removeAll { entry in
            guard isUnwanted(entry.handle) else { return false }
            removed.append(entry.handle)
            return true
        }
        for index in stride(from: entries.count / 2 - 1, through: 0, by: -1) { sift(index) }
        return removed
    }

    private mutating func sift(_ start: Int) {
        let count = entries.count
        var index = start
        while true {
            var least = index
            let left = 2 &* index &+ 1
            if left < count, entries[left] < entries[least] { least = left }
            if left &+ 1 < count, entries[left &+ 1] < entries[least] { least = left &+ 1 }
            if least == index { return }
            entries.swapAt(least, index)
            index = least
        }
    }
}
