import CPlatform
import Glibc

/// An address on 127.0.0.1.
private func withLoopback<Result>(
    _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
) -> Result {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
}

/// A connection, made before this returns, whose reads and writes do not wait.
func connected(to port: UInt16) throws -> Int32 {
    let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard fd >= 0, withLoopback(port, { connect(fd, $0, $1) }) == 0 else {
        throw Failure("connect: \(String(cString: strerror(errno)))")
    }
    // Its end is abrupt: many thousand connections a second would use up all ports otherwise.
    var abrupt = linger(l_onoff: 1, l_linger: 0)
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &abrupt, socklen_t(MemoryLayout<linger>.size))
    try prepare(fd)
    return fd
}

/// A listener on any port, and that port.
func listening() throws -> (Int32, UInt16) {
    let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard fd >= 0, withLoopback(0, { bind(fd, $0, $1) }) == 0, listen(fd, 1024) == 0 else {
        throw Failure("listen: \(String(cString: strerror(errno)))")
    }
    var address = sockaddr_in()
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    withUnsafeMutablePointer(to: &address) { pointer in
        _ = pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(fd, $0, &size) }
    }
    try prepare(fd)
    return (fd, UInt16(bigEndian: address.sin_port))
}

/// Not blocking, and without Nagle's delay.
func prepare(_ fd: Int32) throws {
    let flags = cplatform_status_flags(fd)
    guard cplatform_set_status_flags(fd, flags | O_NONBLOCK) == 0 else {
        throw Failure("fcntl: \(String(cString: strerror(errno)))")
    }
    var on: Int32 = 1
    setsockopt(fd, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
}
