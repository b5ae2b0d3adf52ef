import CPython
import Glibc
import Python
import Streams

/// The buffers that one turn of a reactor reads into, filled in order without the GIL and used again.
struct ReadBuffers {
    /// How much is read at once.
    static let size = 65536

    /// One for each event of a poll; nil where none was made yet, or where one is with a callback.
    private var buffers: [PyPointer?]
    /// From whom a datagram in the buffer of the same number is.
    private(set) var sources: [SocketAddress] = []
    /// How many this turn has filled.
    private var filled = 0
    /// Something was ready for which there was no buffer.
    private(set) var areMissing = false

    init(count: Int) { buffers = Array(repeating: nil, count: count) }

    // MARK: Without the GIL: a buffer here belongs to the reactor alone, so that its fields need none

    /// A new turn: all of them may be filled.
    mutating func begin() {
        areMissing = false
        filled = 0
    }

    /// The memory of the next buffer, and its number; nil where there is none.
    @inline(__always)
    mutating func next() -> (UnsafeMutableRawPointer, Int)? {
        guard filled < buffers.count, let buffer = buffers[filled],
            let memory = buffer.cast(to: ReactorBuffer.self).pointee.base
        else {
            areMissing = true
            return nil
        }
        return (memory, filled)
    }

    /// How many `next` can still give in this turn.
    var left: Int { buffers[min(filled, buffers.count)...].prefix { $0 != nil }.count }

    /// So much was read into the buffer that `next` gave.
    @inline(__always)
    mutating func fill(_ count: Int) {
        guard filled < buffers.count, let buffer = buffers[filled] else { return }
        buffer.cast(to: ReactorBuffer.self).pointee.count = count
        filled += 1
    }

    /// The same for a datagram.
    mutating func fill(_ count: Int, from source: SocketAddress) {
        if sources.isEmpty { sources = Array(repeating: SocketAddress(), count: buffers.count) }
        guard filled < sources.count else { return }
        sources[filled] = source
        fill(count)
    }

    // MARK: With the GIL

    /// Makes what is missing, at most as many as can be ready.
    mutating func refill(_ connections: Int, _ state: ModuleState) {
        guard areMissing || buffers.first == .some(nil) else { return }
        // A socket of datagrams may have many ready.
        for index in 0..<min(buffers.count, max(8, connections)) where buffers[index] == nil {
            guard let made = ReadBuffers.make(state) else { return }
            buffers[index] = made
        }
    }

    /// Takes a buffer out of its place. The caller has the reference.
    mutating func take(_ index: Int) -> PyPointer? {
        guard index < buffers.count else { return nil }
        let buffer = buffers[index]
        buffers[index] = nil
        return buffer
    }

    /// Reuses a buffer that nobody else refers to, and gives any other away. The caller gives the reference up.
    mutating func takeBack(_ buffer: PyPointer, _ index: Int, _ state: ModuleState) {
        let fields = buffer.cast(to: ReactorBuffer.self)
        guard index < buffers.count, buffers[index] == nil else { return Py_DecRef(buffer) }
        if cpython_refcount(buffer) == 1, fields.pointee.exports == 0 {
            fields.pointee.count = 0
            buffers[index] = buffer
            return
        }
        // Whoever keeps it keeps what was read, not the room for more; a memoryview forbids to move it.
        if fields.pointee.exports == 0, fields.pointee.count < fields.pointee.capacity / 2,
            let smaller = realloc(fields.pointee.base, max(1, fields.pointee.count))
        {
            fields.pointee.base = smaller
            fields.pointee.capacity = fields.pointee.count
        }
        Py_DecRef(buffer)
        buffers[index] = ReadBuffers.make(state)
    }

    /// Ends all of them.
    mutating func free() {
        for buffer in buffers { Py_DecRef(buffer) }
        buffers = []
    }

    private static func make(_ state: ModuleState) -> PyPointer? {
        guard let made = try? ReactorBuffer.make(state.bufferType, capacity: size) else {
            PyErr_Clear()
            return nil
        }
        return made.take()
    }
}
