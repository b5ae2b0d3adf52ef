import Glibc
import Testing

@testable import Streams

@Suite("SocketAddress")
struct SocketAddressTests {
    @Test("IPv4 addresses come back as they went in", arguments: ["127.0.0.1", "0.0.0.0", "255.255.255.255"])
    func ipv4(host: String) {
        for port: UInt16 in [0, 1, 8080, .max] {
            #expect(SocketAddress(host: host, port: port)?.parts == .ipv4(host: host, port: port))
        }
    }

    @Test(
        "IPv6 addresses come back as they went in",
        arguments: ["::1", "::", "fe80::1", "2001:db8::ff00:42:8329"])
    func ipv6(host: String) {
        let address = SocketAddress(host: host, port: 53, flow: 7, scope: 2)
        #expect(address?.parts == .ipv6(host: host, port: 53, flow: 7, scope: 2))
    }

    @Test("takes no names", arguments: ["", "localhost", "127.0.0.1 ", "256.0.0.1", "1.2.3", ":::", "a\0b"])
    func names(host: String) {
        #expect(SocketAddress(host: host, port: 1) == nil)
    }

    @Test("paths and abstract names come back as they went in")
    func paths() {
        for path in [Array("/tmp/socket".utf8), Array("ä".utf8), [0, 1, 0, 2], [0]] {
            #expect(SocketAddress(path: path)?.parts == .unix(path: path))
        }
        #expect(SocketAddress().parts == .unix(path: []))
    }

    @Test("only named Unix sockets have a path")
    func unixPaths() {
        #expect(SocketAddress(path: Array("/tmp/socket".utf8))?.isUnixPath == true)
        #expect(SocketAddress(path: [0, 1])?.isUnixPath == true)
        #expect(SocketAddress(host: "127.0.0.1", port: 1)?.isUnixPath == false)
        #expect(!SocketAddress().isUnixPath)
    }

    @Test("paths have a limit")
    func longPath() {
        #expect(SocketAddress(path: Array(repeating: 65, count: 107)) != nil)
        #expect(SocketAddress(path: Array(repeating: 65, count: 108)) == nil)
        #expect(SocketAddress(path: Array(repeating: 65, count: 100_000)) == nil)
    }

    @Test("the kernel takes them and gives them", arguments: ["127.0.0.1", "::1"])
    func kernel(host: String) throws {
        let address = try #require(SocketAddress(host: host, port: 0))
        let fd = socket(host.contains(":") ? AF_INET6 : AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(fd) }
        #expect(address.with { bind(fd, $0, $1) } == 0)
        var bound = SocketAddress()
        #expect(bound.fill { getsockname(fd, $0, $1) } == 0)
        switch bound.parts {
        case .ipv4(let own, let port), .ipv6(let own, let port, _, _):
            #expect(own == host)
            #expect(port > 0)
        default: Issue.record("\(bound.parts)")
        }
    }

    @Test("an unnamed socket of a pair has no name")
    func unnamed() throws {
        try withSockets { ends in
            var peer = SocketAddress()
            #expect(peer.fill { getpeername(ends.reader, $0, $1) } == 0)
            #expect(peer.parts == .unix(path: []))
        }
    }
}
