import CPlatform
import Glibc

/// The address of a socket: IPv4, IPv6 or Unix.
///
/// The corresponding C struct is `sockaddr_storage`.
public struct SocketAddress: Equatable, Sendable {
    private var storage = sockaddr_storage()
    private var size: socklen_t = 0

    /// No address: what an unnamed Unix socket has.
    public init() {}

    /// That of the other end of a connected socket; nil where there is none, or no longer.
    ///
    /// The corresponding C function is `getpeername`.
    public static func ofPeer(_ descriptor: Int32) -> SocketAddress? {
        var address = SocketAddress()
        return unsafe address.fill { unsafe getpeername(descriptor, $0, $1) } == 0 ? address : nil
    }

    /// Lets a C function fill the address in.
    @inline(__always)
    public mutating func fill<Result>(
        _ body: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Result
    ) -> Result {
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        defer { size = min(length, socklen_t(MemoryLayout<sockaddr_storage>.size)) }
        // A sockaddr_storage is made to be looked at as any sockaddr.
        return unsafe withUnsafeMutablePointer(to: &storage) { storage in
            unsafe storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                unsafe body(address, &length)
            }
        }
    }

    /// Shows the address to a C function.
    public func with<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        unsafe withUnsafePointer(to: storage) { storage in
            unsafe storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe body($0, size) }
        }
    }

    /// An IPv4 or IPv6 address from its numeric text; nil for any other text.
    ///
    /// The corresponding C function is `inet_pton`.
    public init?(host: String, port: UInt16, flow: UInt32 = 0, scope: UInt32 = 0) {
        var four = sockaddr_in()
        if unsafe inet_pton(AF_INET, host, &four.sin_addr) == 1 {
            four.sin_family = sa_family_t(AF_INET)
            four.sin_port = port.bigEndian
            set(four)
            return
        }
        var six = sockaddr_in6()
        guard unsafe inet_pton(AF_INET6, host, &six.sin6_addr) == 1 else { return nil }
        six.sin6_family = sa_family_t(AF_INET6)
        six.sin6_port = port.bigEndian
        six.sin6_flowinfo = flow.bigEndian
        six.sin6_scope_id = scope
        set(six)
    }

    /// The address of a Unix socket; nil for a path that is too long. One that begins with a zero byte is in the
    /// abstract namespace.
    public init?(path: [UInt8]) {
        let room = MemoryLayout.size(ofValue: sockaddr_un().sun_path)
        guard path.count < room else { return nil }
        storage.ss_family = sa_family_t(AF_UNIX)
        let offset = SocketAddress.pathOffset
        unsafe withUnsafeMutableBytes(of: &storage) { bytes in
            for (index, byte) in path.enumerated() { unsafe bytes[offset + index] = byte }
        }
        // A path ends with a zero byte, an abstract name where its length says.
        let terminator = path.first == 0 ? 0 : 1
        size = socklen_t(offset + path.count + terminator)
    }

    private mutating func set<Address>(_ address: Address) {
        unsafe withUnsafeMutableBytes(of: &storage) { target in
            unsafe withUnsafeBytes(of: address) { unsafe target.copyMemory(from: $0) }
        }
        size = socklen_t(MemoryLayout<Address>.size)
    }

    /// Whether both name the same socket.
    public static func == (left: SocketAddress, right: SocketAddress) -> Bool {
        guard left.size == right.size else { return false }
        return unsafe left.with { left, size in
            unsafe right.with { right, _ in unsafe memcmp(left, right, Int(size)) == 0 }
        }
    }

    private static let pathOffset = MemoryLayout<sa_family_t>.size

    /// What the address says.
    public enum Parts: Equatable, Sendable {
        case ipv4(host: String, port: UInt16)
        case ipv6(host: String, port: UInt16, flow: UInt32, scope: UInt32)
        /// Empty for a socket that has no name.
        case unix(path: [UInt8])
        case other
    }

    /// The address taken apart; hosts are numeric.
    public var parts: Parts {
        switch Int32(truncatingIfNeeded: storage.ss_family) {
        case AF_INET:
            let address = unsafe withUnsafeBytes(of: storage) {
                unsafe $0.loadUnaligned(as: sockaddr_in.self)
            }
            return .ipv4(
                host: text(AF_INET, address.sin_addr, size: Int(INET_ADDRSTRLEN)),
                port: UInt16(bigEndian: address.sin_port))
        case AF_INET6:
            let address = unsafe withUnsafeBytes(of: storage) {
                unsafe $0.loadUnaligned(as: sockaddr_in6.self)
            }
            return .ipv6(
                host: text(AF_INET6, address.sin6_addr, size: Int(INET6_ADDRSTRLEN)),
                port: UInt16(bigEndian: address.sin6_port), flow: UInt32(bigEndian: address.sin6_flowinfo),
                scope: address.sin6_scope_id)
        case AF_UNIX, AF_UNSPEC: return .unix(path: path)
        default: return .other
        }
    }

    /// Whether it is that of a Unix socket with a name.
    public var isUnixPath: Bool {
        Int32(truncatingIfNeeded: storage.ss_family) == AF_UNIX && Int(size) > SocketAddress.pathOffset
    }

    private var path: [UInt8] {
        let length = Int(size) - SocketAddress.pathOffset
        guard length > 0 else { return [] }
        let bytes = unsafe withUnsafeBytes(of: storage) { bytes in
            unsafe Array(bytes[SocketAddress.pathOffset..<(SocketAddress.pathOffset + length)])
        }
        return bytes.first == 0 ? bytes : Array(bytes.prefix { $0 != 0 })
    }

    private func text<Address>(_ family: Int32, _ address: Address, size: Int) -> String {
        unsafe withUnsafeBytes(of: address) { address in
            unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: size) { buffer in
                let text = unsafe inet_ntop(family, address.baseAddress, buffer.baseAddress, socklen_t(size))
                if let text = unsafe text { return unsafe String(cString: text) }
                return ""
            }
        }
    }
}
