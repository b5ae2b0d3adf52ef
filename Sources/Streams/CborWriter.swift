/// Writes CBOR item by item (RFC 8949): lengths are definite, numbers as short as they can be, floats have 64 bits.
public struct CborWriter {
    /// What was written.
    public private(set) var bytes: [UInt8] = []

    /// Begins with nothing.
    public init() {}

    /// A number.
    public mutating func integer(_ value: Int) {
        if value < 0 {
            head(1, UInt64(bitPattern: Int64(~value)))
        } else {
            head(0, UInt64(bitPattern: Int64(value)))
        }
    }

    /// A number that is not negative.
    public mutating func unsigned(_ value: UInt64) { head(0, value) }

    /// The number -1 - n.
    public mutating func negative(_ value: UInt64) { head(1, value) }

    /// A number beyond 64 bits, by its magnitude, the most significant byte first and not 0; of a negative one by that
    /// of -1 - n.
    public mutating func bigInteger(isNegative: Bool, magnitude: [UInt8]) {
        head(6, isNegative ? 3 : 2)
        head(2, UInt64(magnitude.count))
        bytes += magnitude
    }

    /// Bytes.
    public mutating func bytes(_ content: UnsafeRawBufferPointer) {
        head(2, UInt64(content.count))
        unsafe bytes.append(contentsOf: content)
    }

    /// Text, which must be UTF-8.
    public mutating func text(_ utf8: UnsafeRawBufferPointer) {
        head(3, UInt64(utf8.count))
        unsafe bytes.append(contentsOf: utf8)
    }

    /// So many items follow.
    public mutating func array(_ count: Int) { head(4, UInt64(max(0, count))) }

    /// So many pairs of a key and a value follow.
    public mutating func map(_ count: Int) { head(5, UInt64(max(0, count))) }

    /// True or false.
    public mutating func bool(_ value: Bool) { bytes.append(value ? 0xF5 : 0xF4) }

    /// Nothing.
    public mutating func null() { bytes.append(0xF6) }

    /// A number with a fraction.
    public mutating func float(_ value: Double) {
        // Nothing is lost by two bytes, and they are what others write.
        if value.isNaN { return bytes += [0xF9, 0x7E, 0] }
        if value.isInfinite { return bytes += [0xF9, value < 0 ? 0xFC : 0x7C, 0] }
        bytes.append(0xFB)
        append(value.bitPattern, count: 8)
    }

    private mutating func head(_ major: UInt8, _ number: UInt64) {
        let major = major << 5
        switch number {
        case 0..<24: bytes.append(major | UInt8(truncatingIfNeeded: number))
        case 24..<0x100:
            bytes.append(major | 24)
            append(number, count: 1)
        case 0x100..<0x1_0000:
            bytes.append(major | 25)
            append(number, count: 2)
        case 0x1_0000..<0x1_0000_0000:
            bytes.append(major | 26)
            append(number, count: 4)
        default:
            bytes.append(major | 27)
            append(number, count: 8)
        }
    }

    private mutating func append(_ number: UInt64, count: Int) {
        for shift in (0..<count).reversed() { bytes.append(UInt8(truncatingIfNeeded: number >> (shift * 8))) }
    }
}
