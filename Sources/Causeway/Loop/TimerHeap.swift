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

    private var entries: UnsafeMutablePointer<Entry>
    private var capacity = 64
    private(set) var count = 0
    private var last: UInt64 = 0

    init() { entries = .allocate(capacity: capacity) }

    var first: Entry? { count > 0 ? entries[0] : nil }

    /// Takes over a reference.
    @inline(__always)
    mutating func insert(_ handle: PyPointer, at when: Double) {
        if count == capacity { grow() }
        last &+= 1
        count &+= 1
        rise(Entry(when: when, number: last, handle: handle), from: count &- 1)
    }

    /// Gives the reference of the earliest to the caller.
    mutating func popFirst() -> PyPointer? {
        guard count > 0 else { return nil }
        let top = entries[0].handle
        count &-= 1
        if count > 0 { sink(entries[count], from: 0) }
        return top
    }

    /// Takes those out that nobody wants any more, and returns them.
    mutating func remove(where isUnwanted: (PyPointer) -> Bool) -> [PyPointer] {
        var removed: [PyPointer] = []
        var kept = 0
        for index in 0..<count {
            if isUnwanted(entries[index].handle) {
                removed.append(entries[index].handle)
            } else {
                entries[kept] = entries[index]
                kept &+= 1
            }
        }
        count = kept
        for index in stride(from: count / 2 - 1, through: 0, by: -1) { sink(entries[index], from: index) }
        return removed
    }

    func forEach(_ body: (PyPointer) -> Void) {
        for index in 0..<count { body(entries[index].handle) }
    }

    /// Frees its memory: nothing may be in it.
    func free() { entries.deallocate() }

    /// Puts an entry where it belongs, on the way up from a place that is free.
    @inline(__always)
    private func rise(_ entry: Entry, from start: Int) {
        var index = start
        while index > 0 {
            let parent = (index &- 1) >> 1
            guard entry < entries[parent] else { break }
            entries[index] = entries[parent]
            index = parent
        }
        entries[index] = entry
    }

    /// The same on the way down: to the bottom first, as most entries belong there.
    @inline(__always)
    private func sink(_ entry: Entry, from start: Int) {
        var index = start
        while true {
            var child = 2 &* index &+ 1
            if child >= count { break }
            if child &+ 1 < count, entries[child &+ 1] < entries[child] { child &+= 1 }
            entries[index] = entries[child]
            index = child
        }
        while index > start {
            let parent = (index &- 1) >> 1
            guard entry < entries[parent] else { break }
            entries[index] = entries[parent]
            index = parent
        }
        entries[index] = entry
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Entry>.allocate(capacity: capacity &* 2)
        larger.moveInitialize(from: entries, count: count)
        entries.deallocate()
        entries = larger
        capacity &*= 2
    }
}
