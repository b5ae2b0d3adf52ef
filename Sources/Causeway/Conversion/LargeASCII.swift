import CPython
import Python

/// Large ASCII text as `str`, in one pass that copies and checks.
///
/// Python's own decoder takes twice as long as a `memcpy` of 1 MB, and so does a `memcpy` whose copy is looked through
/// block by block; this takes as long as one.
enum LargeASCII {
    /// From how many bytes on the pass is worth its set-up.
    static let threshold = 4096

    /// What is copied between two looks whether all were ASCII so far.
    private static let block = 16_384

    /// The `str` of some bytes; nil, with no error set, when they are not all ASCII.
    static func string(_ bytes: UnsafeRawBufferPointer) -> Object? {
        var memory: UnsafeMutablePointer<CChar>?
        guard let string = cpython_new_ascii(bytes.count, &memory) else {
            PyErr_Clear()
            return nil
        }
        let made = Object(owning: string)
        guard let memory, copy(bytes, to: UnsafeMutableRawPointer(memory)) else {
            PyErr_Clear()
            return nil
        }
        return made
    }

    /// False soon after a byte that is not ASCII. `target` has room for all of them.
    private static func copy(_ bytes: UnsafeRawBufferPointer, to target: UnsafeMutableRawPointer) -> Bool {
        guard let source = bytes.baseAddress else { return true }
        var offset = 0
        while offset < bytes.count {
            let count = min(block, bytes.count - offset)
            guard copyBlock(source + offset, to: target + offset, count) else { return false }
            offset += count
        }
        return true
    }

    private static func copyBlock(
        _ source: UnsafeRawPointer, to target: UnsafeMutableRawPointer, _ count: Int
    ) -> Bool {
        // What the processor has in one register, four at a time; no branch, check or call inside.
        typealias Vector = SIMD16<UInt8>
        let size = MemoryLayout<Vector>.size
        var seen = Vector()
        var offset = 0
        while offset &+ 4 &* size <= count {
            let first = source.loadUnaligned(fromByteOffset: offset, as: Vector.self)
            let second = source.loadUnaligned(fromByteOffset: offset &+ size, as: Vector.self)
            let third = source.loadUnaligned(fromByteOffset: offset &+ 2 &* size, as: Vector.self)
            let fourth = source.loadUnaligned(fromByteOffset: offset &+ 3 &* size, as: Vector.self)
            target.storeBytes(of: first, toByteOffset: offset, as: Vector.self)
            target.storeBytes(of: second, toByteOffset: offset &+ size, as: Vector.self)
            target.storeBytes(of: third, toByteOffset: offset &+ 2 &* size, as: Vector.self)
            target.storeBytes(of: fourth, toByteOffset: offset &+ 3 &* size, as: Vector.self)
            seen |= (first | second) | (third | fourth)
            offset &+= 4 &* size
        }
        var rest: UInt8 = 0
        while offset < count {
            let byte = source.load(fromByteOffset: offset, as: UInt8.self)
            target.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
            rest |= byte
            offset &+= 1
        }
        return seen.max() < 0x80 && rest < 0x80
    }
}
