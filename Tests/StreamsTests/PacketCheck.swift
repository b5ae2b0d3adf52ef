import Testing

@testable import Streams

/// What must be true of any bytes. `Tests/Fuzz` looks for bytes of which it is not.
enum PacketCheck {
    static func run(_ bytes: [UInt8]) {
        let whole = decode(bytes[...])
        if case .incomplete(let needed) = whole { #expect(needed > bytes.count) }
        guard case .packet(let head, let payload) = whole else { return }
        #expect(payload.upperBound <= bytes.count)
        #expect(payload.lowerBound >= head.size)
        for size in 0..<payload.upperBound {
            guard case .incomplete(let needed) = decode(bytes[..<size]) else {
                Issue.record("\(bytes) is no packet when \(size) bytes are there")
                return
            }
            #expect(needed > size && needed <= payload.upperBound)
        }
    }

    /// Nil where it is malformed.
    private static func decode(_ bytes: ArraySlice<UInt8>) -> FoundPacket? {
        try? FoundPacket.decode(bytes.span, maximum: 1 << 20)
    }
}
