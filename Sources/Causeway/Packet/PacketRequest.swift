import CPython
import Python
import Streams
import Synchronization

/// A request to the peer, from when it is made until somebody has its outcome.
final class PacketRequest: @unchecked Sendable {
    /// What became of it.
    enum Outcome {
        case response(flags: UInt64, PacketPayload)
        /// Given up here; a response is dropped.
        case cancelled
        case timedOut
        /// The connection ended first.
        case ended(PacketEnd)
    }

    let tag: UInt64
    let channel: UInt64
    /// In nanoseconds of the monotonic clock; .max is never.
    let deadline: Int64
    private let settled = Atomic<Bool>(false)
    // Under the link's lock until it is settled, and not changed afterwards.
    private(set) var outcome: Outcome?
    private var wakers: [@Sendable () -> Void] = []

    init(tag: UInt64, channel: UInt64, deadline: Int64) {
        self.tag = tag
        self.channel = channel
        self.deadline = deadline
    }

    /// Whether there is an outcome. From any thread.
    var isSettled: Bool { settled.load(ordering: .acquiring) }

    /// With the link's lock, by who has taken it out of the table. Returns who is to be told after that.
    func settle(_ outcome: Outcome) -> [@Sendable () -> Void] {
        self.outcome = outcome
        settled.store(true, ordering: .releasing)
        defer { wakers = [] }
        return wakers
    }

    /// With the link's lock; false where it is settled.
    func add(_ waker: @escaping @Sendable () -> Void) -> Bool {
        if isSettled { return false }
        wakers.append(waker)
        return true
    }
}

/// The payload of a packet that has come: a copy, or the `bytes` it was read into.
enum PacketPayload: @unchecked Sendable {
    case copied(Payload)
    case object(PacketBytes)

    /// How many bytes.
    var count: Int {
        switch self {
        case .copied(let payload): payload.count
        case .object(let bytes): bytes.count
        }
    }

    /// A `bytes`. With the GIL.
    func object() throws(PythonError) -> Object {
        switch self {
        case .copied(let payload): try newBytes(payload.bytes)
        case .object(let bytes): Object(retaining: bytes.pointer)
        }
    }
}

/// A `bytes` that a thread without the GIL may let go of: the link gives it back later.
final class PacketBytes: @unchecked Sendable {
    let pointer: PyPointer
    let count: Int
    private let garbage: PacketGarbage

    init(owning pointer: PyPointer, count: Int, _ garbage: PacketGarbage) {
        self.pointer = pointer
        self.count = count
        self.garbage = garbage
    }

    deinit { garbage.add(pointer) }
}

/// References to Python objects that were let go of without the GIL.
final class PacketGarbage: @unchecked Sendable {
    private struct Contents: @unchecked Sendable { var objects: [PyPointer] = [] }
    private let contents = Mutex(Contents())
    private let some = Atomic<Bool>(false)

    /// Whether there are none.
    var isEmpty: Bool { !some.load(ordering: .acquiring) }

    /// Adds a reference that the caller owned. From any thread.
    func add(_ object: PyPointer) {
        let object = Contents(objects: [object])
        contents.withLock { $0.objects += object.objects }
        some.store(true, ordering: .releasing)
    }

    /// Gives them back. With the GIL.
    func giveBack() {
        if isEmpty { return }
        some.store(false, ordering: .releasing)
        let taken = contents.withLock { contents in
            defer { contents = Contents() }
            return contents
        }
        for object in taken.objects { Py_DecRef(object) }
    }
}

/// Why no more packets come.
enum PacketEnd: Sendable {
    /// The peer has said so, or the stream ended between packets.
    case finished(String)
    /// It broke.
    case broken(String)
    /// Here.
    case closed(String)

    var text: String {
        switch self {
        case .finished(let text), .broken(let text), .closed(let text): text
        }
    }

    /// The name that Python sees.
    var kind: String {
        switch self {
        case .finished: "finished"
        case .broken: "broken"
        case .closed: "closed"
        }
    }
}
