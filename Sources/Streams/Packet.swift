/// A packet without its payload: what `cs.packetstream` has at the beginning of each.
///
///     packet = length body
///     body   = tag (flags << 2 | request? << 1 | channel?) [channel] [request type] payload
///
/// All numbers are a `BSUInt`. The channel 0 is not written, and only requests have a type.
public struct PacketHead: Equatable, Sendable {
    /// Whether it asks for something, or answers.
    public var isRequest: Bool
    /// 0 where nothing else is said.
    public var channel: UInt64
    /// What an answer has in common with its request.
    public var tag: UInt64
    /// At most `largestFlags`. Those of an answer have in their lowest bit whether the request went well.
    public var flags: UInt64
    /// As it is on the wire: 0 is of a control packet, and 1 the first type of an application. 0 in an answer.
    public var requestType: UInt64

    /// Makes one from its parts.
    public init(isRequest: Bool, channel: UInt64, tag: UInt64, flags: UInt64, requestType: UInt64) {
        self.isRequest = isRequest
        self.channel = channel
        self.tag = tag
        self.flags = flags
        self.requestType = requestType
    }

    /// Two bits of the number are taken.
    public static let largestFlags = UInt64.max >> 2
    /// How many bytes a head takes at most, with the length of the packet.
    public static let longest = 5 * BSUInt.longest
    /// What a body may have where nothing else was chosen.
    public static let standardMaximum = 64 << 20

    /// The last packet of one direction.
    public static let endOfStream = PacketHead(isRequest: true, channel: 0, tag: 0, flags: 0, requestType: 0)
    /// No more requests will come, but answers may.
    public static let endOfRequests = PacketHead(
        isRequest: true, channel: 0, tag: 1, flags: 0, requestType: 0)

    private var bits: UInt64 { flags << 2 | (isRequest ? 2 : 0) | (channel != 0 ? 1 : 0) }

    /// How many bytes of the body it takes.
    @inline(__always)
    public var size: Int {
        BSUInt.size(of: tag) &+ BSUInt.size(of: bits) &+ (channel != 0 ? BSUInt.size(of: channel) : 0)
            &+ (isRequest ? BSUInt.size(of: requestType) : 0)
    }

    /// Writes the length of the packet and the head; the payload follows.
    ///
    /// - Parameters:
    ///   - payload: how many bytes it has.
    ///   - memory: there must be room for `longest` bytes.
    /// - Returns: how many bytes it took.
    @inline(__always)
    public func write(payload: Int, to memory: UnsafeMutablePointer<UInt8>) -> Int {
        // All of it: the caller has room for the longest.
        var end = unsafe BSUInt.write(UInt64(clamping: size &+ payload), to: memory)
        end &+= unsafe BSUInt.write(tag, to: memory + end)
        end &+= unsafe BSUInt.write(bits, to: memory + end)
        if channel != 0 { end &+= unsafe BSUInt.write(channel, to: memory + end) }
        if isRequest { end &+= unsafe BSUInt.write(requestType, to: memory + end) }
        return end
    }
}

/// A packet that was found at the beginning of some bytes.
public enum FoundPacket: Equatable, Sendable {
    /// Its head, where its payload is among the bytes, and where it ends.
    case packet(PacketHead, payload: Range<Int>)
    /// There must be so many bytes before more can be said.
    case incomplete(needed: Int)

    /// Looks for the packet at the beginning of bytes.
    ///
    /// - Parameters:
    ///   - bytes: what has come, with the length of a packet first.
    ///   - maximum: how many bytes a body may have. A longer packet is refused as soon as its length is there.
    /// - Throws: where the bytes are no packet, or begin a longer one.
    @inline(__always)
    public static func decode(_ bytes: Span<UInt8>, maximum: Int) throws(PacketError) -> FoundPacket {
        guard let (length, start) = try number(.length, bytes, from: 0, to: bytes.count) else {
            return .incomplete(needed: bytes.count &+ 1)
        }
        if length == 0 { throw .empty }
        guard length <= UInt64(clamping: maximum), let size = Int(exactly: length),
            case (let end, false) = start.addingReportingOverflow(size)
        else { throw .tooLong(length, maximum: maximum) }
        if end > bytes.count { return .incomplete(needed: end) }
        let (head, position) = try head(bytes, from: start, to: end)
        return .packet(head, payload: position..<end)
    }

    /// The head of a packet whose payload need not be there. For one that `decode` has said to be incomplete.
    ///
    /// - Returns: the head, and where the payload is once it has come; nil where the head may not be there as a whole.
    /// - Throws: where the bytes are no packet.
    public static func decodeHead(_ bytes: Span<UInt8>) throws(PacketError) -> (
        PacketHead, payload: Range<Int>
    )? {
        let longest = 4 * (BSUInt.longest + BSUInt.longestPadding)
        guard let (length, start) = try number(.length, bytes, from: 0, to: bytes.count),
            let size = Int(exactly: length), case (let end, false) = start.addingReportingOverflow(size),
            bytes.count &- start >= longest
        else { return nil }
        let (head, position) = try head(bytes, from: start, to: end)
        return (head, position..<end)
    }

    @inline(__always)
    private static func head(
        _ bytes: Span<UInt8>, from start: Int, to end: Int
    ) throws(PacketError) -> (PacketHead, end: Int) {
        guard let (tag, afterTag) = try number(.tag, bytes, from: start, to: end) else {
            throw .tooShort(.tag)
        }
        guard let (bits, afterFlags) = try number(.flags, bytes, from: afterTag, to: end) else {
            throw .tooShort(.flags)
        }
        var head = PacketHead(
            isRequest: bits & 2 != 0, channel: 0, tag: tag, flags: bits >> 2, requestType: 0)
        var position = afterFlags
        if bits & 1 != 0 {
            guard let (channel, next) = try number(.channel, bytes, from: position, to: end) else {
                throw .tooShort(.channel)
            }
            head.channel = channel
            position = next
        }
        if head.isRequest {
            guard let (type, next) = try number(.requestType, bytes, from: position, to: end) else {
                throw .tooShort(.requestType)
            }
            head.requestType = type
            position = next
        }
        return (head, position)
    }

    @inline(__always)
    private static func number(
        _ field: PacketError.Field, _ bytes: Span<UInt8>, from start: Int, to end: Int
    ) throws(PacketError) -> (value: UInt64, end: Int)? {
        do throws(BSUInt.Problem) { return try BSUInt.read(bytes, from: start, to: end) } catch {
            switch error {
            case .tooLarge: throw .tooLarge(field)
            case .tooMuchPadding: throw .tooMuchPadding(field)
            }
        }
    }
}

/// What is wrong with bytes that should be a packet. Nothing that follows them can be understood.
public enum PacketError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The body has no bytes.
    case empty
    /// The body ends before or in a number.
    case tooShort(Field)
    /// The body has more bytes than are allowed.
    case tooLong(UInt64, maximum: Int)
    /// A number that 64 bits cannot hold.
    case tooLarge(Field)
    /// A number with more zeros before it than are allowed.
    case tooMuchPadding(Field)

    /// The numbers of a packet.
    public enum Field: String, Sendable {
        case length, tag, flags, channel
        case requestType = "request type"
    }

    /// A sentence for people.
    public var description: String {
        switch self {
        case .empty: "no packet: it is empty"
        case .tooShort(let field): "no packet: it is too short for its \(field.rawValue)"
        case .tooLong(let length, let maximum):
            "the packet has \(length) bytes, and at most \(maximum) are allowed: max_packet"
        case .tooLarge(let field): "no packet: more than 64 bits for its \(field.rawValue)"
        case .tooMuchPadding(let field):
            "no packet: more than \(BSUInt.longestPadding) zeros before its \(field.rawValue)"
        }
    }
}
