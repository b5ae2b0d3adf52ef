import Testing

@testable import Streams

@Suite("Packet")
struct PacketTests {
    private func decode(_ bytes: [UInt8], maximum: Int = PacketHead.standardMaximum) throws(PacketError)
        -> FoundPacket
    { try FoundPacket.decode(bytes.span, maximum: maximum) }

    private func encode(_ head: PacketHead, payload: [UInt8]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: PacketHead.longest)
        let size = bytes.withUnsafeMutableBufferPointer {
            $0.baseAddress.map { head.write(payload: payload.count, to: $0) } ?? 0
        }
        return bytes[..<size] + payload
    }

    private func encode(_ number: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: BSUInt.longest)
        let size = bytes.withUnsafeMutableBufferPointer {
            $0.baseAddress.map { BSUInt.write(number, to: $0) } ?? 0
        }
        return Array(bytes[..<size])
    }

    @Test("every line of the specification")
    func vectors() throws {
        #expect(PacketVector.all.count > 60)
        for vector in PacketVector.all {
            switch vector {
            case .number(let value, let bytes, let isPadded):
                let read = try BSUInt.read(bytes.span, from: 0, to: bytes.count)
                #expect(read?.value == value)
                #expect(read?.end == bytes.count)
                if !isPadded {
                    #expect(encode(value) == bytes)
                    #expect(BSUInt.size(of: value) == bytes.count)
                }
            case .packet(let head, let payload, let bytes):
                #expect(encode(head, payload: payload) == bytes)
                let start = bytes.count - payload.count
                #expect(try decode(bytes) == .packet(head, payload: start..<bytes.count))
                // What follows is not looked at.
                #expect(try decode(bytes + [0, 0]) == .packet(head, payload: start..<bytes.count))
            case .malformed(let text, let bytes):
                let error = #expect(throws: PacketError.self) { try decode(bytes) }
                #expect(
                    error?.description.contains(text) == true, "\(String(describing: error)), not \(text)")
            }
        }
    }

    @Test("a part of a packet is incomplete, and says how much is needed")
    func truncations() throws {
        for case .packet(let head, let payload, let bytes) in PacketVector.all where bytes.count < 1000 {
            let lengthSize = BSUInt.size(of: UInt64(head.size + payload.count))
            for size in 0..<bytes.count {
                let needed = size < lengthSize ? size + 1 : bytes.count
                #expect(try decode(Array(bytes[..<size])) == .incomplete(needed: needed))
            }
        }
    }

    @Test("a long packet is refused by its length alone, and one that is as long as allowed is not")
    func lengthBombs() throws {
        #expect(throws: PacketError.tooLong(6, maximum: 5)) { try decode([6], maximum: 5) }
        #expect(try decode([5], maximum: 5) == .incomplete(needed: 6))
        let longest = encode(UInt64.max)
        #expect(throws: PacketError.tooLong(.max, maximum: .max)) { try decode(longest, maximum: .max) }
        #expect(throws: PacketError.tooLong(UInt64(Int.max), maximum: .max)) {
            try decode(encode(UInt64(Int.max)), maximum: .max)
        }
        #expect(throws: PacketError.tooLong(1, maximum: 0)) { try decode([1], maximum: 0) }
    }

    @Test("numbers of the largest size", arguments: [true, false])
    func largest(isRequest: Bool) throws {
        let head = PacketHead(
            isRequest: isRequest, channel: .max, tag: .max, flags: PacketHead.largestFlags,
            requestType: isRequest ? .max : 0)
        let bytes = encode(head, payload: [1])
        #expect(bytes.count <= PacketHead.longest)
        #expect(try decode(bytes) == .packet(head, payload: (bytes.count - 1)..<bytes.count))
    }

    @Test("every packet is what it was after encoding and decoding", arguments: 0..<20)
    func roundTrip(seed: Int) throws {
        var random = Randomness(seed: seed)
        func number() -> UInt64 { random.next() >> UInt64.random(in: 0..<64, using: &random) }
        for _ in 0..<1000 {
            let isRequest = Bool.random(using: &random)
            let head = PacketHead(
                isRequest: isRequest, channel: number() & 1 == 0 ? 0 : number(), tag: number(),
                flags: number() >> 2, requestType: isRequest ? number() : 0)
            let payload = [UInt8](repeating: 7, count: Int.random(in: 0..<300, using: &random))
            let bytes = encode(head, payload: payload)
            let start = bytes.count - payload.count
            #expect(try decode(bytes) == .packet(head, payload: start..<bytes.count))
        }
    }

    @Test("what the fuzzer has found")
    func corpus() {
        #expect(PacketVector.corpus.count > 50)
        for bytes in PacketVector.corpus { PacketCheck.run(bytes) }
    }

    @Test(
        "random bytes are a packet, a part of one or an error, and one byte more never changes that",
        arguments: 0..<20)
    func noise(seed: Int) {
        var random = Randomness(seed: seed)
        for _ in 0..<3000 {
            let count = Int.random(in: 0..<60, using: &random)
            let bytes = (0..<count).map { place in
                // Lengths that fit, and many bytes that are continued.
                place == 0
                    ? UInt8.random(in: 0..<70, using: &random)
                    : Bool.random(using: &random)
                        ? UInt8.random(in: 0..<4, using: &random)
                        : Bool.random(using: &random) ? 0x80 : UInt8.random(in: .min ... .max, using: &random)
            }
            PacketCheck.run(bytes)
        }
    }
}
