/// Puts values one after the other into bytes: numbers least significant byte first, texts and lists with their
/// length before them.
struct WireWriter {
    private(set) var bytes: [UInt8] = []

    mutating func put(_ value: some FixedWidthInteger) {
        var value = value
        for _ in 0..<(type(of: value).bitWidth / 8) {
            bytes.append(UInt8(truncatingIfNeeded: value))
            value >>= 8
        }
    }

    mutating func put(_ isTrue: Bool) { put(UInt8(truncatingIfNeeded: isTrue ? 1 : 0)) }

    mutating func put(_ text: [UInt8]) {
        put(UInt32(clamping: text.count))
        bytes += text
    }

    mutating func put<Element>(_ list: [Element], _ each: (inout WireWriter, Element) -> Void) {
        put(UInt32(clamping: list.count))
        for element in list { each(&self, element) }
    }

    mutating func put<Value>(_ value: Value?, _ some: (inout WireWriter, Value) -> Void) {
        put(value != nil)
        if let value { some(&self, value) }
    }
}

/// Bytes that are not what a `WireWriter` has made.
public struct WireError: Error, Equatable, Sendable {}

/// Takes values out of bytes in the order in which a `WireWriter` has put them in.
struct WireReader {
    private let bytes: [UInt8]
    private var place = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Nothing may be left.
    func end() throws(WireError) { if place != bytes.count { throw WireError() } }

    private mutating func take(_ count: Int) throws(WireError) -> ArraySlice<UInt8> {
        guard count <= bytes.count - place else { throw WireError() }
        defer { place += count }
        return bytes[place..<place + count]
    }

    mutating func number<Number: FixedWidthInteger>() throws(WireError) -> Number {
        var value: Number = 0
        for byte in try take(Number.bitWidth / 8).reversed() { value = value << 8 | Number(byte) }
        return value
    }

    mutating func bool() throws(WireError) -> Bool {
        let byte: UInt8 = try number()
        guard byte < 2 else { throw WireError() }
        return byte == 1
    }

    mutating func text() throws(WireError) -> [UInt8] {
        let count: UInt32 = try number()
        return Array(try take(Int(count)))
    }

    mutating func list<Element>(
        _ each: (inout WireReader) throws(WireError) -> Element
    ) throws(WireError) -> [Element] {
        let count: UInt32 = try number()
        // Every element has a byte at least: a length that cannot be is seen before memory is asked for.
        guard Int(count) <= bytes.count - place else { throw WireError() }
        var list: [Element] = []
        list.reserveCapacity(Int(count))
        for _ in 0..<count { list.append(try each(&self)) }
        return list
    }

    mutating func optional<Value>(
        _ some: (inout WireReader) throws(WireError) -> Value
    ) throws(WireError) -> Value? {
        try bool() ? try some(&self) : nil
    }
}
