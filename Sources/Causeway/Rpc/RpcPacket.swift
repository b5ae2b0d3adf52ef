import CPython
import Python
import Streams

/// The frames of streaming calls that need no Python, by the types of their requests.
enum RpcFrame {
    case data, credit

    /// Of a packet; nil for another one.
    init?(_ head: PacketHead) {
        guard head.isRequest, head.channel == 0 else { return nil }
        switch head.requestType &- 1 {
        case 0x28: self = .data
        case 0x2C: self = .credit
        default: return nil
        }
    }
}

/// Chunks of one call as they are in a packet, behind the number of the call and that of the first: each with
/// its kind, its weight and its length, from the most significant byte on. A reply goes among them, so that
/// it comes after what was sent before.
struct RpcPacket {
    fileprivate static let raw: UInt8 = 0
    fileprivate static let cbor: UInt8 = 1
    fileprivate static let reply: UInt8 = 2
    fileprivate static let start = 8
    fileprivate static let head = 9
    /// What comes before the bytes of the first chunk.
    static let beforeFirst = start + head

    /// What it is made of, how much that weighs, and how many of them are no replies.
    let items: ArraySlice<Payload>
    let weight: Int
    let chunks: UInt32
    private let size: Int

    init(_ items: ArraySlice<Payload>) {
        var weight = 0
        var chunks: UInt32 = 0
        var size = RpcPacket.start
        for item in items {
            size += RpcPacket.head + item.body.bytes.count
            if item.owner is StreamHalf.ReplyMark { continue }
            weight += item.chunkWeight
            chunks += 1
        }
        self.items = items
        self.weight = weight
        self.chunks = chunks
        self.size = size
    }

    /// Whether a payload of so many bytes, which begins so, is one chunk of bytes.
    static func isOneChunk(_ beginning: [UInt8], of count: Int) -> Bool {
        beginning.count == beforeFirst && beginning[start] == raw
            && number(beginning[(start + 5)...]) == count - beforeFirst
    }

    /// Adds it to what is written. With the link's lock.
    fileprivate func append(
        to link: PacketLink, _ head: PacketHead, number: UInt32, sequence: UInt32
    ) {
        let output = link.output
        output.append(head, payload: size)
        RpcPacket.append(to: output, number, sequence)
        for item in items {
            let body = item.body
            let kind =
                item.owner is CborChunk
                ? RpcPacket.cbor : item.owner is StreamHalf.ReplyMark ? RpcPacket.reply : RpcPacket.raw
            withUnsafeTemporaryAllocation(byteCount: RpcPacket.head, alignment: 1) { bytes in
                bytes[0] = kind
                RpcPacket.store(UInt32(truncatingIfNeeded: item.chunkWeight), in: bytes, at: 1)
                RpcPacket.store(UInt32(truncatingIfNeeded: body.bytes.count), in: bytes, at: 5)
                output.append(UnsafeRawBufferPointer(bytes))
            }
            if body.count >= PacketOutput.heldSize {
                output.append(held: body.bytes, owner: body.keeper)
            } else {
                output.append(body.bytes)
            }
        }
    }

    fileprivate static func append(to output: PacketOutput, _ first: UInt32, _ second: UInt32) {
        withUnsafeTemporaryAllocation(byteCount: start, alignment: 1) { bytes in
            store(first, in: bytes, at: 0)
            store(second, in: bytes, at: 4)
            output.append(UnsafeRawBufferPointer(bytes))
        }
    }

    private static func store(_ number: UInt32, in target: UnsafeMutableRawBufferPointer, at place: Int) {
        target.storeBytes(of: number.bigEndian, toByteOffset: place, as: UInt32.self)
    }

    fileprivate static func number(_ bytes: some Collection<UInt8>) -> Int? {
        guard bytes.count >= 4 else { return nil }
        return bytes.prefix(4).reduce(0) { $0 << 8 | Int($1) }
    }

    // MARK: What comes

    /// One that has come.
    struct Arrived {
        let number, sequence: UInt32
        private let payload: PacketPayload

        /// Nil where it is too short.
        init?(_ payload: PacketPayload) {
            guard let number = payload.number(at: 0), let sequence = payload.number(at: 4) else { return nil }
            self.number = number
            self.sequence = sequence
            self.payload = payload
        }

        /// How much the chunks weigh, and how many they are; nil where it is no packet of chunks.
        func measure() -> (weight: Int, chunks: Int)? {
            var weight = 0
            var chunks = 0
            let isWhole = forEach { kind, itsWeight, body in
                if kind == RpcPacket.reply { return true }
                chunks += 1
                weight += kind == RpcPacket.raw ? max(StreamHalf.leastWeight, body.count) : itsWeight
                switch kind {
                case RpcPacket.raw: return true
                // A term of Erlang's weighs as much as its external form, which is about as large.
                case RpcPacket.cbor:
                    return itsWeight >= StreamHalf.leastWeight && body.count <= 4 * itsWeight + 64
                default: return false
                }
            }
            return isWhole ? (weight, chunks) : nil
        }

        /// Has what it holds come at a half. It was measured before.
        func deliver(to half: StreamHalf) {
            if case .object(let bytes) = payload, !bytes.beginning.isEmpty {
                return half.deliver(Payload(bytes.bytes, ownedBy: bytes))
            }
            _ = forEach { kind, weight, body in
                switch kind {
                case RpcPacket.reply: half.deliver(reply: WireAnswer(Payload(copying: body)))
                case RpcPacket.cbor: half.deliver(Payload(cbor: Payload(copying: body), weight: weight))
                case _ where body.isEmpty: half.deliver(Payload(weighing: 1, ownedBy: EmptyChunk.shared))
                case _ where body.count >= PacketOutput.heldSize:
                    // Shown where it is: the copy is made when it is received.
                    half.deliver(Payload(body, ownedBy: payload.keeper))
                default: half.deliver(Payload(copying: body))
                }
                return true
            }
        }

        /// False where it ends in the middle, or `body` says so.
        private func forEach(_ body: (UInt8, Int, UnsafeRawBufferPointer) -> Bool) -> Bool {
            if case .object(let bytes) = payload, !bytes.beginning.isEmpty {
                return body(RpcPacket.raw, bytes.bytes.count, bytes.bytes)
            }
            var rest = payload.bytes.dropFirst(RpcPacket.start)
            while let kind = rest.first {
                guard rest.count >= RpcPacket.head, let weight = RpcPacket.number(rest.dropFirst()),
                    let size = RpcPacket.number(rest.dropFirst(5)), rest.count - RpcPacket.head >= size
                else { return false }
                let chunk = UnsafeRawBufferPointer(rebasing: rest.dropFirst(RpcPacket.head).prefix(size))
                guard body(kind, weight, chunk) else { return false }
                rest = rest.dropFirst(RpcPacket.head + size)
            }
            return true
        }
    }
}

extension PacketPayload {
    /// Those behind what comes before the object.
    fileprivate var bytes: UnsafeRawBufferPointer {
        switch self {
        case .copied(let payload): payload.bytes
        case .object(let bytes): bytes.bytes
        }
    }

    /// What keeps them valid.
    fileprivate var keeper: AnyObject {
        switch self {
        case .copied(let payload): payload.keeper
        case .object(let bytes): PacketPiece(bytes)
        }
    }

    /// Of 32 bits.
    fileprivate func number(at place: Int) -> UInt32? {
        if case .object(let bytes) = self, !bytes.beginning.isEmpty {
            return RpcPacket.number(bytes.beginning.dropFirst(place)).map { UInt32(truncatingIfNeeded: $0) }
        }
        return RpcPacket.number(bytes.dropFirst(place)).map { UInt32(truncatingIfNeeded: $0) }
    }
}

/// Who keeps the packet that a chunk is a piece of. The chunk is not that object.
private final class PacketPiece: Sendable {
    private let packet: PacketBytes

    init(_ packet: PacketBytes) { self.packet = packet }
}

extension Payload {
    /// What of it is written: its bytes, or those of its CBOR.
    var body: Payload {
        if let chunk = owner as? CborChunk { return chunk.body }
        if let mark = owner as? StreamHalf.ReplyMark { return (mark.value as? WireReply)?.body ?? self }
        return self
    }
}

extension PacketLink {
    /// A call goes over it; false where nothing does any more, and for a number that another has.
    func add(_ flow: RpcFlow) -> Bool {
        lock.withLock { c in
            if c.isClosed || c.end != nil || c.flows?[flow.ownNumber] != nil { return false }
            c.flows?[flow.ownNumber] = flow
            if flow.isOfPeer { c.flowsOfPeer += 1 }
            return true
        }
    }

    /// Has a packet of chunks written with the next ones; false where nothing is sent any more. Without its
    /// lock.
    func post(_ packet: RpcPacket, number: UInt32, sequence: UInt32, of flow: RpcFlow) -> Bool {
        ask(0x28, (flow, packet.weight)) { head in
            packet.append(to: self, head, number: number, sequence: sequence)
        }
    }

    /// The same for room for so many bytes.
    func post(credit: Int, number: UInt32) -> Bool {
        ask(0x2C) { head in
            output.append(head, payload: RpcPacket.start)
            RpcPacket.append(to: output, number, UInt32(clamping: credit))
        }
    }

    /// The same for an end.
    func post(_ final: RpcFlow.Final, number: UInt32) {
        var writer = CborWriter()
        func text(_ text: String) {
            var text = text
            text.withUTF8 { writer.text(UnsafeRawBufferPointer($0)) }
        }
        func entry(_ key: String, _ value: String) {
            text(key)
            text(value)
        }
        writer.map(final.isFailure ? 3 : 2)
        switch final {
        case .send: entry("role", "send")
        case .both: entry("role", "both")
        case .failure(let code, let message):
            entry("code", code)
            entry("message", message)
        }
        text("stream_id")
        writer.unsigned(UInt64(number))
        _ = ask(final.isFailure ? 0x2A : 0x29) { head in
            writer.bytes.withUnsafeBytes { output.append(head, $0) }
        }
    }

    private func ask(
        _ type: UInt64, _ flow: (RpcFlow, weight: Int)? = nil, _ append: (PacketHead) -> Void
    ) -> Bool {
        lock.withLock { c in
            if c.isClosed || c.end != nil || c.ownRequestsEnded { return false }
            guard mayAppend(&c) else { return false }
            let request = PacketRequest(tag: c.nextTag, channel: 0, deadline: .max, flow: flow)
            c.nextTag &+= 1
            c.counters.requestsSent += 1
            c.pending[request.tag] = request
            append(
                PacketHead(
                    isRequest: true, channel: 0, tag: request.tag, flags: 0, requestType: type &+ 1))
            return true
        }
    }

    /// Takes a frame; false where it is none. Those of calls that are over are dropped. The reader's.
    func take(_ frame: RpcFrame, _ payload: PacketPayload) -> Bool {
        guard let packet = RpcPacket.Arrived(payload) else { return false }
        let flow = lock.withLock { $0.flows?[packet.number] }
        switch frame {
        case .data: return flow?.deliver(packet) ?? true
        case .credit:
            // The second number is that of the bytes.
            flow?.grant(Int(packet.sequence))
            return true
        }
    }
}
