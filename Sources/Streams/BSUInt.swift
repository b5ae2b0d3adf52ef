/// Unsigned numbers as packets have them: base 128, the most significant digit first, and every byte but the last
/// has its highest bit set.
public enum BSUInt {
    /// How many bytes the largest number takes.
    public static let longest = 10
    /// How many needless zeros may come before a number.
    public static let longestPadding = 32

    /// What is wrong with a number.
    public enum Problem: Error, Sendable { case tooLarge, tooMuchPadding }

    /// How many bytes a number takes.
    @inline(__always)
    public static func size(of value: UInt64) -> Int {
        value < 128 ? 1 : (UInt64.bitWidth &- value.leadingZeroBitCount &+ 6) / 7
    }

    /// Writes a number, and returns how many bytes it took: `size(of:)`, for which there must be room.
    @inline(__always)
    public static func write(_ value: UInt64, to memory: UnsafeMutablePointer<UInt8>) -> Int {
        let size = size(of: value)
        var rest = value
        var index = size &- 1
        var mark: UInt8 = 0
        while index >= 0 {
            // The caller has room for as many as there are.
            unsafe memory[index] = UInt8(truncatingIfNeeded: rest & 127) | mark
            mark = 128
            rest >>= 7
            index &-= 1
        }
        return size
    }

    /// Reads the number that starts at `start`, which is not below 0.
    ///
    /// - Returns: the number and where it ends; nil when it goes on behind `end` or the last byte.
    /// - Throws: where it has more than 64 bits, or more padding than is allowed.
    @inline(__always)
    public static func read(
        _ bytes: Span<UInt8>, from start: Int, to end: Int
    ) throws(Problem) -> (value: UInt64, end: Int)? {
        let end = min(end, bytes.count)
        var value: UInt64 = 0
        var index = start
        while index < end {
            let byte = bytes[index]
            // What is shifted out would be lost.
            if value >> 57 != 0 { throw .tooLarge }
            value = value << 7 | UInt64(byte & 127)
            index &+= 1
            if byte < 128 { return (value, index) }
            if value == 0, index &- start > longestPadding { throw .tooMuchPadding }
        }
        return nil
    }
}
