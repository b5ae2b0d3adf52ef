import Glibc
import Streams

/// What a poll has found for a loop.
enum Delivery {
    case data(StreamTransport, Int, Int)
    case endOfStream(StreamTransport)
    case failed(StreamTransport, Errno)
    case readable(StreamTransport)
    case writable(LoopTransport)
    /// One of `LoopCore.datagrams`, by its place.
    case datagram(DatagramTransport, Int)
    case datagramFailed(DatagramTransport, Errno)
    case watched(LoopWatch, Bool, Bool)
}

/// The memory that a loop reads into: one piece, used anew in each turn, so that it stays in the processor's cache.
struct ReadArena {
    private static let size = 1 << 20
    /// How much one read may bring, and how little room is still worth a read.
    static let most = 256 << 10
    private static let least = 64 << 10
    private var memory: UnsafeMutableRawPointer?
    private var used = 0

    /// Where the next read goes; nil where there is no room in this turn.
    @inline(__always)
    mutating func next() -> (UnsafeMutableRawPointer, offset: Int, size: Int)? {
        let room = ReadArena.size - used
        guard room >= ReadArena.least else { return nil }
        let memory = self.memory ?? .allocate(byteCount: ReadArena.size, alignment: 64)
        self.memory = memory
        return (memory + used, used, min(room, ReadArena.most))
    }

    /// So many bytes were read; the next begin at a cache line.
    @inline(__always)
    mutating func take(_ count: Int) { used += (count + 63) & ~63 }

    func bytes(_ offset: Int, _ count: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: memory.map { $0 + offset }, count: count)
    }

    mutating func empty() { used = 0 }

    func free() { memory?.deallocate() }
}
