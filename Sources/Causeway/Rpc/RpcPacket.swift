import CPython
import Python
import Streams

/// Chunks of one call as they are in a packet: each with its kind, its weight and its length, from the most
/// significant byte on. A reply goes among them, so that it comes after what was sent before.
enum RpcPacket {
    private static let raw: UInt8 = 0
    private static let cbor: UInt8 = 1
    private static let reply: UInt8 = 2
    private static let head = 9

    /// What was taken of an outbox.
    struct Taken: ~Copyable {
        let packet: Object
        let weight, chunks: Int
        let hasEnded: Bool
    }

    /// Takes what an outbox holds, up to so many bytes, and appends it to a packet.
    static func take(
        _ outbox: ByteQueue, bytes limit: Int, after start: UnsafeRawBufferPointer, _ state: ModuleState
    ) throws(PythonError) -> Taken {
        var items: [Payload] = []
        let end = outbox.receive(bytes: limit, count: 4096) { items.append($0) }
        var size = start.count
        var weight = 0
        var replies: [Int: Payload] = [:]
        for (index, item) in items.enumerated() {
            if let mark = item.owner as? StreamHalf.ReplyMark {
                let body = try body(of: mark, state)
                size += head + body.count
                replies[index] = body
            } else {
                size += head + item.body.bytes.count
                weight += item.count
            }
        }
        let packet = try Object(PyBytes_FromStringAndSize(nil, size))
        guard let memory = PyBytes_AsString(packet.pointer) else { throw PythonError() }
        var target = UnsafeMutableRawPointer(memory)
        func append(_ bytes: UnsafeRawBufferPointer) {
            // Room for all was asked for.
            if let source = bytes.baseAddress { target.copyMemory(from: source, byteCount: bytes.count) }
            target += bytes.count
        }
        func append(kind: UInt8, weight: Int, _ body: UnsafeRawBufferPointer) {
            target.storeBytes(of: kind, as: UInt8.self)
            store(weight, in: target + 1)
            store(body.count, in: target + 5)
            target += head
            append(body)
        }
        append(start)
        for (index, item) in items.enumerated() {
            if let body = replies[index] {
                append(kind: reply, weight: 0, body.bytes)
            } else {
                append(
                    kind: item.owner is CborChunk ? cbor : raw, weight: item.count, item.body.bytes)
            }
        }
        let hasEnded =
            switch end {
            case .closed, .aborted: true
            case .message, .empty: false
            }
        return Taken(
            packet: packet, weight: weight, chunks: items.count - replies.count, hasEnded: hasEnded)
    }

    /// The third of the reply's tuple is what goes over the wire.
    private static func body(of mark: StreamHalf.ReplyMark, _ state: ModuleState) throws(PythonError)
        -> Payload
    {
        guard let value = mark.value as? AbortReason else { throw runtimeError("a reply of another host") }
        let tuple = try value.object(state)
        guard cpython_is_tuple(tuple.pointer) != 0, PyTuple_Size(tuple.pointer) == 3,
            let body = PyTuple_GetItem(tuple.pointer, 2), cpython_type(body) == cpython_bytes_type()
        else { throw runtimeError("a reply without its CBOR") }
        return Payload(
            copying: UnsafeRawBufferPointer(start: PyBytes_AsString(body), count: PyBytes_Size(body)))
    }

    /// Has the chunks of a packet come, from a place on. Returns how many those are. A reply is made by a function.
    static func deliver(
        _ packet: PyPointer, from start: Int, to half: StreamHalf, _ makeReply: PyPointer,
        _ state: ModuleState
    ) throws(PythonError) -> Int {
        guard cpython_type(packet) == cpython_bytes_type() else { throw typeError("a packet is bytes") }
        let all = UnsafeRawBufferPointer(start: PyBytes_AsString(packet), count: PyBytes_Size(packet))
        var rest = all.dropFirst(max(start, 0))
        var chunks = 0
        while let kind = rest.first {
            guard rest.count >= head, let weight = number(rest.dropFirst()),
                let size = number(rest.dropFirst(5)),
                rest.count - head >= size
            else { throw malformed() }
            let body = UnsafeRawBufferPointer(rebasing: rest.dropFirst(head).prefix(size))
            rest = rest.dropFirst(head + size)
            switch kind {
            case raw where size == 0:
                half.deliver(Payload(weighing: 1, ownedBy: EmptyChunk.shared))
            case raw where size >= 16384:
                // Shown where it is: the copy is made when it is received.
                let holder = HeldObject(Object(retaining: packet), state.leftovers)
                half.deliver(Payload(body, ownedBy: PacketPiece(holder)))
            case raw: half.deliver(Payload(copying: body))
            case cbor: half.deliver(Payload(cbor: Payload(copying: body), weight: weight))
            case reply:
                let bytes = try newBytes(body)
                let value = try Object(cpython_call1(makeReply, bytes.pointer))
                half.deliver(reply: try AbortReason(value.pointer, state))
                continue
            default: throw malformed()
            }
            chunks += 1
        }
        return chunks
    }

    private static func malformed() -> PythonError { valueError("a packet of chunks that is none") }

    private static func store(_ number: Int, in target: UnsafeMutableRawPointer) {
        target.storeBytes(of: UInt32(truncatingIfNeeded: number).bigEndian, as: UInt32.self)
    }

    private static func number(_ bytes: Slice<UnsafeRawBufferPointer>) -> Int? {
        guard bytes.count >= 4 else { return nil }
        return bytes.prefix(4).reduce(0) { $0 << 8 | Int($1) }
    }
}

/// Who keeps the packet that a chunk is a piece of. The chunk is not that object.
private final class PacketPiece: Sendable {
    private let packet: HeldObject

    init(_ packet: HeldObject) { self.packet = packet }
}

extension Payload {
    /// Its bytes, or those of its CBOR.
    fileprivate var body: Payload { (owner as? CborChunk)?.body ?? self }
}
