import CPython
import Glibc
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
    /// Whose chunks it brings, where it does, and how much they weigh: the response is for that alone.
    let flow: (RpcFlow, weight: Int)?
    private let settled = Atomic<Bool>(false)
    // Under the link's lock until it is settled, and not changed afterwards.
    private(set) var outcome: Outcome?
    private var wakers: [@Sendable () -> Void] = []

    init(tag: UInt64, channel: UInt64, deadline: Int64, flow: (RpcFlow, weight: Int)? = nil) {
        self.tag = tag
        self.channel = channel
        self.deadline = deadline
        self.flow = flow
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
    /// What of the payload comes before it: see `RpcPacket`.
    let beginning: [UInt8]
    private let size: Int
    private let garbage: PacketGarbage

    /// How many bytes the payload has.
    var count: Int { beginning.count &+ size }

    init(owning pointer: PyPointer, count: Int, after beginning: [UInt8] = [], _ garbage: PacketGarbage) {
        self.pointer = pointer
        self.beginning = beginning
        self.garbage = garbage
        size = count
    }

    /// What the object holds, as long as this lives.
    var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: PyBytes_AsString(pointer), count: size)
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

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        pthread_key_create(&key, nil)
        return key
    }()

    /// Where the calling thread, which has no GIL, is to leave what it lets go of. Nil on threads that have
    /// it.
    static var current: PacketGarbage? {
        pthread_getspecific(key).map { Unmanaged<PacketGarbage>.fromOpaque($0).takeUnretainedValue() }
    }

    /// Does something without the GIL by which messages may be let go of.
    func collect<Result>(_ body: () -> Result) -> Result {
        let outer = pthread_getspecific(PacketGarbage.key)
        pthread_setspecific(PacketGarbage.key, Unmanaged.passUnretained(self).toOpaque())
        defer { pthread_setspecific(PacketGarbage.key, outer) }
        return body()
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
