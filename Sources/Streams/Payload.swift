/// Bytes on their way: a copy of its own, or what somebody else's memory holds.
///
/// They never change and never move. The last reference may be given up on any thread.
@safe
public struct Payload: @unchecked Sendable {
    @safe private struct Header {
        let count: Int
        /// Where the bytes are that are not a copy, and who keeps them there.
        let elsewhere: UnsafeRawPointer?
        let owner: AnyObject?
        var place = 0
    }

    /// The header, and the bytes of a copy in the same piece of memory.
    private let storage: ManagedBuffer<Header, UInt8>

    /// A copy of bytes.
    public init(copying bytes: UnsafeRawBufferPointer) {
        let header = unsafe Header(count: bytes.count, elsewhere: nil, owner: nil)
        storage = .create(minimumCapacity: bytes.count) { _ in header }
        guard let source = bytes.baseAddress else { return }
        unsafe storage.withUnsafeMutablePointerToElements { target in
            // Room for as many was asked for.
            unsafe UnsafeMutableRawPointer(target).copyMemory(from: source, byteCount: header.count)
        }
    }

    /// Bytes that stay valid and unchanged as long as `owner` lives.
    public init(_ bytes: UnsafeRawBufferPointer, ownedBy owner: AnyObject) {
        let header = unsafe Header(count: bytes.count, elsewhere: bytes.baseAddress, owner: owner)
        storage = .create(minimumCapacity: 0) { _ in header }
    }

    /// No bytes, but something of the host's that takes as much of a budget as so many would.
    public init(weighing count: Int, ownedBy owner: AnyObject) {
        let header = unsafe Header(count: count, elsewhere: nil, owner: owner)
        storage = .create(minimumCapacity: 0) { _ in header }
    }

    /// How many bytes they are.
    public var count: Int { storage.header.count }

    /// How many of them are copied where the message is received: none that somebody keeps elsewhere.
    var copiedCount: Int { owner == nil ? count : 0 }

    /// Who keeps the bytes; nil for a copy.
    public var owner: AnyObject? { storage.header.owner }

    /// The bytes: valid as long as `keeper`, which this value holds.
    public var bytes: UnsafeRawBufferPointer {
        let header = storage.header
        if let elsewhere = unsafe header.elsewhere {
            return unsafe UnsafeRawBufferPointer(start: elsewhere, count: header.count)
        }
        guard header.owner == nil else { return unsafe UnsafeRawBufferPointer(start: nil, count: 0) }
        let start = unsafe storage.withUnsafeMutablePointerToElements { UnsafeRawPointer($0) }
        return unsafe UnsafeRawBufferPointer(start: start, count: header.count)
    }

    /// Where it stands among all messages of its queue, under whose lock it changes.
    var place: Int {
        get { storage.header.place }
        nonmutating set { storage.header.place = newValue }
    }

    /// What keeps the bytes valid.
    public var keeper: AnyObject { storage }
}
