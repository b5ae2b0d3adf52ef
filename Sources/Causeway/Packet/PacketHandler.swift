import CPython
import Python
import Streams

/// What answers the requests of a channel: `callable(type, flags, payload)`, or one that takes a list of requests and
/// answers them later.
final class PacketHandler: @unchecked Sendable {
    let callable: PyPointer
    let takesLists: Bool
    private let garbage: PacketGarbage

    /// With the GIL.
    init(_ callable: PyPointer, takesLists: Bool, _ garbage: PacketGarbage) {
        Py_IncRef(callable)
        self.callable = callable
        self.takesLists = takesLists
        self.garbage = garbage
    }

    deinit { garbage.add(callable) }
}

/// A request of the peer that waits for a handler, or for its answer.
struct InboundRequest: Sendable {
    let channel: UInt64
    let tag: UInt64
    let flags: UInt64
    /// As the application has it.
    let type: UInt64
    let payload: PacketPayload
    let handler: PacketHandler

    var key: InboundKey { InboundKey(channel: channel, tag: tag) }
}

/// What an answer is found by.
struct InboundKey: Hashable, Sendable {
    let channel: UInt64
    let tag: UInt64
}

/// What a handler answers, of the forms that need no Python code. With the GIL.
enum PacketAnswer {
    /// Went well, with flags and a payload, which is a borrowed `bytes`.
    case ok(flags: UInt64, payload: PyPointer?)
    /// Something else.
    case other

    init(_ result: PyPointer) {
        if result == cpython_none() {
            self = .ok(flags: 0, payload: nil)
            return
        }
        switch cpython_exact_kind(result) {
        case CPYTHON_BYTES: self = .ok(flags: 0, payload: result)
        case CPYTHON_INT: self = Self.flags(result).map { .ok(flags: $0, payload: nil) } ?? .other
        case CPYTHON_TUPLE:
            guard PyTuple_Size(result) == 2, let first = PyTuple_GetItem(result, 0),
                let second = PyTuple_GetItem(result, 1), cpython_exact_kind(first) == CPYTHON_INT,
                cpython_exact_kind(second) == CPYTHON_BYTES, let flags = Self.flags(first)
            else {
                self = .other
                return
            }
            self = .ok(flags: flags, payload: second)
        default: self = .other
        }
    }

    /// Flags that fit a response.
    private static func flags(_ object: PyPointer) -> UInt64? {
        var overflow: Int32 = 0
        let number = PyLong_AsLongAndOverflow(object, &overflow)
        guard overflow == 0, let flags = UInt64(exactly: number), flags <= PacketHead.largestFlags >> 1
        else { return nil }
        return flags
    }
}
