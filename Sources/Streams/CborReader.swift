/// Why bytes are no CBOR, or a value has no form in it.
public struct CborError: Error, Equatable {
    /// For people.
    public let text: String

    /// An error with its text.
    public init(_ text: String) { self.text = text }
}

/// Reads CBOR item by item (RFC 8949), without making anything of it: what contains others comes before them.
///
/// It trusts nothing: lengths are held against what is there before anybody asks for memory.
@safe
public struct CborReader {
    /// One item. Ranges are places in the bytes that are read.
    public enum Item: Equatable, Sendable {
        case unsigned(UInt64)
        /// The number -1 - n.
        case negative(UInt64)
        case bytes(Range<Int>), text(Range<Int>)
        /// Pieces follow, each an item of its own, up to `end`.
        case piecesOfBytes, piecesOfText
        /// So many items follow, or pairs of items. Nil: up to `end`.
        case array(Int?), map(Int?)
        /// Says what the next item means.
        case tag(UInt64)
        case simple(UInt8)
        case float(Double)
        case end
    }

    private let bytes: UnsafeRawBufferPointer
    /// How many bytes there are.
    public let count: Int
    /// Where the next item begins.
    public private(set) var position = 0

    /// Reads from the first of some bytes, which must stay valid.
    public init(_ bytes: UnsafeRawBufferPointer) {
        unsafe self.bytes = bytes
        count = bytes.count
    }

    /// The next item. Throws where there is none that CBOR allows.
    public mutating func next() throws(CborError) -> Item {
        let first = try byte()
        let major = first >> 5
        let info = first & 31
        if major == 7 { return try special(info) }
        if info == 31 { return try openEnded(major) }
        let number = try argument(info)
        switch major {
        case 0: return .unsigned(number)
        case 1: return .negative(number)
        case 2: return .bytes(try range(number))
        case 3: return .text(try range(number))
        case 4: return .array(try size(number, itemsEach: 1))
        case 5: return .map(try size(number, itemsEach: 2))
        default: return .tag(number)
        }
    }

    private func openEnded(_ major: UInt8) throws(CborError) -> Item {
        switch major {
        case 2: return .piecesOfBytes
        case 3: return .piecesOfText
        case 4: return .array(nil)
        case 5: return .map(nil)
        default: throw CborError("a number or a tag without a value at byte \(position - 1)")
        }
    }

    private mutating func special(_ info: UInt8) throws(CborError) -> Item {
        switch info {
        case 0..<24: return .simple(info)
        case 24:
            let value = try byte()
            guard value >= 32 else {
                throw CborError("the simple value \(value) in two bytes at byte \(position - 2)")
            }
            return .simple(value)
        case 25: return .float(CborReader.half(UInt16(truncatingIfNeeded: try number(ofBytes: 2))))
        case 26: return .float(Double(Float(bitPattern: UInt32(truncatingIfNeeded: try number(ofBytes: 4)))))
        case 27: return .float(Double(bitPattern: try number(ofBytes: 8)))
        case 31: return .end
        default: throw CborError("byte \(position - 1) has no meaning in CBOR")
        }
    }

    private mutating func argument(_ info: UInt8) throws(CborError) -> UInt64 {
        switch info {
        case 0..<24: return UInt64(info)
        case 24: return try number(ofBytes: 1)
        case 25: return try number(ofBytes: 2)
        case 26: return try number(ofBytes: 4)
        case 27: return try number(ofBytes: 8)
        default: throw CborError("byte \(position - 1) has no meaning in CBOR")
        }
    }

    private mutating func byte() throws(CborError) -> UInt8 {
        guard position < count else { throw ended() }
        defer { position += 1 }
        return unsafe bytes[position]
    }

    private mutating func number(ofBytes size: Int) throws(CborError) -> UInt64 {
        guard size <= count - position else { throw ended() }
        var number: UInt64 = 0
        for _ in 0..<size { number = number << 8 | UInt64(try byte()) }
        return number
    }

    private mutating func range(_ length: UInt64) throws(CborError) -> Range<Int> {
        guard length <= UInt64(count - position) else { throw ended() }
        let start = position
        position += Int(truncatingIfNeeded: length)
        return start..<position
    }

    /// An item takes a byte at least: a count beyond that is a lie.
    private func size(_ number: UInt64, itemsEach: UInt64) throws(CborError) -> Int {
        guard number <= UInt64(count - position) / itemsEach else { throw ended() }
        return Int(truncatingIfNeeded: number)
    }

    private func ended() -> CborError { CborError("the CBOR ends in the middle, at byte \(count)") }

    /// A number of 16 bits: RFC 8949, appendix D.
    private static func half(_ bits: UInt16) -> Double {
        let exponent = Int(bits >> 10 & 31)
        let fraction = Double(bits & 1023)
        let size: Double =
            switch exponent {
            case 0: fraction * 0x1p-24
            case 31: fraction == 0 ? .infinity : .nan
            default: (fraction + 1024) * Double(sign: .plus, exponent: exponent - 25, significand: 1)
            }
        return bits >> 15 == 1 ? -size : size
    }
}
