import CPython
import Glibc
import Python

/// Large ASCII text as `str`, in one pass over the memory that copies and checks block by block.
///
/// Python's own decoder takes twice as long as a `memcpy` of 1 MB; this takes little more than one.
enum LargeASCII {
    /// From how many bytes on the pass is worth its set-up.
    static let threshold = 4096

    private static let block = 4096

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

    /// False as soon as a byte is found that is not ASCII. `target` has room for all of them.
    private static func copy(_ bytes: UnsafeRawBufferPointer, to target: UnsafeMutableRawPointer) -> Bool {
        guard let source = bytes.baseAddress else { return true }
        var offset = 0
        while offset < bytes.count {
            let count = min(block, bytes.count - offset)
            memcpy(target + offset, source + offset, count)
            // What was just written is in the nearest cache.
            guard isASCII(target + offset, count) else { return false }
            offset += count
        }
        return true
    }

    private static func isASCII(_ bytes: UnsafeRawPointer, _ count: Int) -> Bool {
        var seen: UInt64 = 0
        // No branch, check or call inside: the compiler makes vector instructions of it.
        let words = count / 8
        for word in 0..<words { seen |= bytes.loadUnaligned(fromByteOffset: word &* 8, as: UInt64.self) }
        for rest in (words &* 8)..<count { seen |= UInt64(bytes.load(fromByteOffset: rest, as: UInt8.self)) }
        return seen & 0x8080_8080_8080_8080 == 0
    }
}
