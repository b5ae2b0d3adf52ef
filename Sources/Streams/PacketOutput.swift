import CPlatform
import Glibc

/// Packets on their way out, in order. Small payloads are copied together, large ones stay where they are and
/// are written from there.
///
/// What is said to be done with the lock needs one of the user's; whoever has begun to write does so without
/// it.
@safe
public final class PacketOutput: @unchecked Sendable {
    /// From how many bytes on a payload is better not copied.
    public static let heldSize = 16384

    private static let bufferSize = 65536
    private static let pieces = 64

    /// A piece of memory: one of ours, or that of somebody who is let go of when it is written.
    @safe private struct Piece {
        let memory: UnsafeMutableRawPointer
        var start: Int
        var end: Int
        let capacity: Int
        let owner: AnyObject?
    }

    private var writingCount: Int { writing.count }

    /// What became of an attempt to write.
    public enum Outcome: Sendable { case done, wouldBlock, failed(Errno) }

    private var queued: [Piece] = []
    private var writing: [Piece] = []
    private var first = 0
    private var written = 0
    private var freed: [AnyObject] = []
    private var spare: UnsafeMutableRawPointer?
    private var isBeingWritten = false
    /// How many bytes are not known to be written.
    public private(set) var size = 0
    /// How many bytes of responses are among what is queued, and how many were among what is being written.
    private var queuedResponses = 0
    private var writtenResponses = 0
    /// How many bytes of responses are not known to be written, at most. With the lock.
    public var responses: Int { queuedResponses &+ writtenResponses }

    /// Nothing to write.
    public init() {}

    deinit {
        for piece in queued + writing[first...] where piece.owner == nil {
            unsafe piece.memory.deallocate()
        }
        unsafe spare?.deallocate()
    }

    /// Adds a packet whose payload is copied. With the lock.
    public func append(_ head: PacketHead, _ payload: UnsafeRawBufferPointer) {
        let room = unsafe makeRoom(PacketHead.longest &+ payload.count)
        var count = unsafe head.write(payload: payload.count, to: room.assumingMemoryBound(to: UInt8.self))
        if let source = payload.baseAddress {
            unsafe (room + count).copyMemory(from: source, byteCount: payload.count)
        }
        count &+= payload.count
        if !head.isRequest { queuedResponses &+= count }
        added(count)
    }

    /// Adds a packet whose payload stays where it is as long as its owner, which is let go of when it is
    /// written. With the lock.
    public func append(_ head: PacketHead, held payload: UnsafeRawBufferPointer, owner: AnyObject) {
        append(head, payload: payload.count)
        unsafe append(held: payload, owner: owner)
    }

    /// Begins a packet, of whose payload so many bytes follow. With the lock.
    public func append(_ head: PacketHead, payload count: Int) {
        let room = unsafe makeRoom(PacketHead.longest)
        let size = unsafe head.write(payload: count, to: room.assumingMemoryBound(to: UInt8.self))
        if !head.isRequest { queuedResponses &+= size &+ count }
        added(size)
    }

    /// Adds a copy of a part of the payload of the packet that was begun. With the lock.
    public func append(_ part: UnsafeRawBufferPointer) {
        guard let source = part.baseAddress else { return }
        unsafe makeRoom(part.count).copyMemory(from: source, byteCount: part.count)
        added(part.count)
    }

    /// Adds a part that stays where it is as long as its owner. With the lock.
    public func append(held part: UnsafeRawBufferPointer, owner: AnyObject) {
        guard let base = part.baseAddress else { return }
        // It is only read from.
        let piece = unsafe Piece(
            memory: UnsafeMutableRawPointer(mutating: base), start: 0, end: part.count, capacity: 0,
            owner: owner)
        queued.append(piece)
        size &+= part.count
    }

    /// Where the next bytes of our own go: so many fit there.
    private func makeRoom(_ count: Int) -> UnsafeMutableRawPointer {
        if let last = queued.last, last.capacity &- last.end >= count {
            return unsafe last.memory + last.end
        }
        var memory = unsafe UnsafeMutableRawPointer?.none
        var capacity = PacketOutput.bufferSize
        if count <= capacity {
            unsafe memory = spare
            unsafe spare = nil
        } else {
            capacity = count
        }
        let made = unsafe memory ?? .allocate(byteCount: capacity, alignment: 16)
        unsafe queued.append(Piece(memory: made, start: 0, end: 0, capacity: capacity, owner: nil))
        return unsafe made
    }

    private func added(_ count: Int) {
        let last = queued.count &- 1
        // makeRoom has left a piece of ours at the end.
        if last >= 0 { queued[last].end &+= count }
        size &+= count
    }

    /// Whether there is something to write and nobody writes: then the caller does, and calls `end`. With the
    /// lock.
    public func begin() -> Bool {
        if isBeingWritten || size == 0 { return false }
        isBeingWritten = true
        if first == writingCount {
            writing.removeAll(keepingCapacity: true)
            first = 0
            swap(&queued, &writing)
            writtenResponses = queuedResponses
            queuedResponses = 0
        }
        return true
    }

    /// Writes what there is room for. Without the lock, by who has begun.
    ///
    /// The corresponding C functions are `sendmsg(MSG_DONTWAIT | MSG_NOSIGNAL)` and, for what is no socket,
    /// `writev`.
    public func write(to target: borrowing PacketStream) -> Outcome {
        while first < writingCount {
            switch unsafe withUnsafeTemporaryAllocation(
                of: iovec.self, capacity: PacketOutput.pieces,
                { vectors in
                    var count = 0
                    var index = first
                    while count < PacketOutput.pieces, index < writingCount {
                        let piece = writing[index]
                        unsafe vectors[count] = iovec(
                            iov_base: piece.memory + piece.start, iov_len: piece.end &- piece.start)
                        count &+= 1
                        index &+= 1
                    }
                    return unsafe target.write(UnsafeMutableBufferPointer(rebasing: vectors[..<count]))
                })
            {
            case .bytes(let count): advance(by: count)
            case .wouldBlock: return .wouldBlock
            case .failed(let error): return .failed(error)
            }
        }
        return .done
    }

    private func advance(by count: Int) {
        written &+= count
        var rest = count
        while first < writingCount {
            let piece = writing[first]
            let size = piece.end &- piece.start
            if rest < size {
                writing[first].start &+= rest
                return
            }
            rest &-= size
            first &+= 1
            if let owner = piece.owner {
                freed.append(owner)
            } else if unsafe spare == nil, piece.capacity == PacketOutput.bufferSize {
                unsafe reusable.append(piece.memory)
            } else {
                unsafe piece.memory.deallocate()
            }
        }
    }

    /// Buffers that the writer has emptied.
    private var reusable: [UnsafeMutableRawPointer] = unsafe []

    /// The writer is done: who owns what was written is let go of. With the lock.
    ///
    /// - Returns: how many bytes were written.
    public func end() -> Int {
        isBeingWritten = false
        size &-= written
        while let memory = unsafe reusable.popLast() {
            if unsafe spare == nil { unsafe spare = memory } else { unsafe memory.deallocate() }
        }
        writing.removeFirst(first)
        first = 0
        if writing.isEmpty { writtenResponses = 0 }
        defer {
            written = 0
            freed.removeAll(keepingCapacity: true)
        }
        return written
    }

    /// Forgets what is not being written, and its owners; all of it where nobody writes. With the lock.
    public func drop() {
        var dropped = queued
        queued = []
        queuedResponses = 0
        if !isBeingWritten {
            dropped += writing[first...]
            writing = []
            first = 0
            writtenResponses = 0
        }
        while let piece = dropped.popLast() {
            size &-= piece.end &- piece.start
            if piece.owner == nil { unsafe piece.memory.deallocate() }
        }
    }
}
