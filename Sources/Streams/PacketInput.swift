/// Packets on their way in: what was read, until whole packets are taken out of it. One thread at a time uses
/// it.
///
/// A payload of at least `largeSize` bytes that is not there yet gets memory of its own from the user, and is
/// read there directly.
@safe
public final class PacketInput: @unchecked Sendable {
    /// From how many bytes on a payload is read to where it stays.
    public static let largeSize = 65536

    private static let capacity = 2 * largeSize
    /// What is read at most behind a large payload: more would have to be copied where another large one
    /// follows.
    private static let afterLarge = 4096
    private var memory: UnsafeMutableRawPointer?
    private var start = 0
    private var end = 0
    private var large: Large?
    private var comesFromLarge = false
    private let maximum: Int

    @safe private struct Large {
        let memory: UnsafeMutableRawPointer
        let count: Int
        var filled: Int
    }

    /// What is there.
    @safe public enum Found {
        /// A packet; its payload is valid until the next call.
        case packet(PacketHead, UnsafeRawBufferPointer)
        /// A packet whose payload needs memory: `place` gives it.
        case large(PacketHead, count: Int)
        /// The payload that was placed has come.
        case filled
        /// More must be read.
        case nothing
    }

    /// For bodies of at most so many bytes.
    public init(maximum: Int) { self.maximum = maximum }

    deinit { unsafe memory?.deallocate() }

    /// Whether the stream may end here.
    public var isBetweenPackets: Bool { start == end && large == nil }

    /// Reads once.
    ///
    /// - Returns: what became of it, and whether there may be more.
    public func read(from source: borrowing PacketStream) -> (PacketStream.Transfer, isFull: Bool) {
        let base = unsafe memory ?? .allocate(byteCount: PacketInput.capacity, alignment: 16)
        unsafe memory = base
        if let large = large {
            // The buffer is empty.
            let room = large.count &- large.filled
            let transfer = unsafe source.read(
                large.memory + large.filled, room, then: base, PacketInput.afterLarge)
            guard case .bytes(let count) = transfer else { return (transfer, false) }
            self.large?.filled &+= min(count, room)
            end = max(0, count &- room)
            comesFromLarge = true
            return (transfer, count == room &+ PacketInput.afterLarge)
        }
        if start > 0 {
            if start < end { unsafe base.copyMemory(from: base + start, byteCount: end &- start) }
            end &-= start
            start = 0
        }
        let room = comesFromLarge ? max(1, PacketInput.afterLarge &- end) : PacketInput.capacity &- end
        comesFromLarge = false
        let transfer = unsafe source.read(base + end, room)
        guard case .bytes(let count) = transfer else { return (transfer, false) }
        end &+= count
        return (transfer, count == room)
    }

    /// The next of what is there. Throws what `FoundPacket.decode` throws.
    public func next() throws(PacketError) -> Found {
        if let large = large {
            guard large.filled == large.count else { return .nothing }
            self.large = nil
            return .filled
        }
        guard let base = unsafe memory else { return .nothing }
        let rest = unsafe UnsafeBufferPointer(
            start: (base + start).assumingMemoryBound(to: UInt8.self), count: end &- start)
        switch try unsafe FoundPacket.decode(rest.span, maximum: maximum) {
        case .packet(let head, let payload):
            let bytes = unsafe UnsafeRawBufferPointer(
                start: base + start + payload.lowerBound, count: payload.count)
            start &+= payload.upperBound
            return unsafe .packet(head, bytes)
        case .incomplete(let needed):
            if needed <= PacketInput.largeSize { return .nothing }
            guard let (head, payload) = try unsafe FoundPacket.decodeHead(rest.span) else { return .nothing }
            return .large(head, count: payload.count)
        }
    }

    /// The first bytes of the large payload that was found; nil where they are not there yet. Throws where the
    /// packet is none.
    public func beginning(_ count: Int) throws(PacketError) -> [UInt8]? {
        guard let base = unsafe memory else { return nil }
        let rest = unsafe UnsafeBufferPointer(
            start: (base + start).assumingMemoryBound(to: UInt8.self), count: end &- start)
        guard let (_, payload) = try unsafe FoundPacket.decodeHead(rest.span),
            payload.lowerBound &+ count <= min(rest.count, payload.upperBound)
        else { return nil }
        return unsafe [UInt8](
            UnsafeRawBufferPointer(start: base + start + payload.lowerBound, count: count))
    }

    /// Gives the payload that was found its memory: so many bytes as were asked for, without those at its
    /// beginning that `beginning` has told. Throws where the packet is none.
    public func place(_ target: UnsafeMutableRawPointer, count: Int, after skipped: Int = 0)
        throws(PacketError)
    {
        guard let base = unsafe memory else { return }
        let rest = unsafe UnsafeBufferPointer(
            start: (base + start).assumingMemoryBound(to: UInt8.self), count: end &- start)
        guard let (_, payload) = try unsafe FoundPacket.decodeHead(rest.span), skipped >= 0,
            payload.count == count &+ skipped
        else { return }
        let first = payload.lowerBound &+ skipped
        let there = min(rest.count, payload.upperBound) &- first
        guard there >= 0 else { return }
        unsafe target.copyMemory(from: base + start + first, byteCount: there)
        start = 0
        end = 0
        unsafe large = Large(memory: target, count: count, filled: there)
    }

    /// Forgets the memory that was given.
    public func forget() { large = nil }
}
