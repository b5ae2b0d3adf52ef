import CPython
import Python

/// A first-in first-out queue of Python objects, each with a reference that is the queue's. With the GIL.
struct ObjectRing {
    private var slots: UnsafeMutablePointer<PyPointer>
    private var capacity = 64
    private var first = 0
    private(set) var count = 0

    init() { slots = .allocate(capacity: capacity) }

    var isEmpty: Bool { count == 0 }

    /// Takes over a reference.
    @inline(__always)
    mutating func append(_ object: PyPointer) {
        if count == capacity { grow() }
        // The capacity is a power of two.
        slots[(first &+ count) & (capacity &- 1)] = object
        count &+= 1
    }

    /// Gives the reference of the oldest to the caller.
    @inline(__always)
    mutating func popFirst() -> PyPointer? {
        guard count > 0 else { return nil }
        let object = slots[first]
        first = (first &+ 1) & (capacity &- 1)
        count &-= 1
        return object
    }

    func forEach(_ body: (PyPointer) -> Void) {
        for index in 0..<count { body(slots[(first &+ index) & (capacity &- 1)]) }
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<PyPointer>.allocate(capacity: capacity &* 2)
        for index in 0..<count { larger[index] = slots[(first &+ index) & (capacity &- 1)] }
        slots.deallocate()
        slots = larger
        first = 0
        capacity &*= 2
    }

    /// Frees its memory: nothing may be in it.
    func free() { slots.deallocate() }
}
