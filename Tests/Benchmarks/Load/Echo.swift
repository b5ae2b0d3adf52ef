import ArgumentParser
import Glibc
import Streams

/// A plain epoll server on one thread: what no server that does more can be faster than. Prints its port.
struct Echo: ParsableCommand {
    func run() throws {
        let (listener, port) = try listening()
        print(port)
        fflush(nil)
        let poller = try Poller(capacity: 64)
        try poller.add(listener, token: token(listener), interest: .read)
        var unwritten: [Int32: ArraySlice<UInt8>] = [:]
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        // Ends with who has started it.
        try poller.add(0, token: token(0), interest: .read)
        while true {
            for number in 0..<poller.wait(milliseconds: -1) {
                let event = poller.event(number)
                let fd = Int32(event.token.slot)
                if fd == 0 { return }
                if fd == listener {
                    try accept(listener, poller)
                } else if let rest = unwritten[fd] {
                    let left = write(rest, to: fd)
                    unwritten[fd] = left
                    if left == nil { try poller.modify(fd, token: token(fd), interest: .read) }
                } else {
                    let count = buffer.withUnsafeMutableBytes { recv(fd, $0.baseAddress, $0.count, 0) }
                    if count <= 0 {
                        if count < 0, errno == EAGAIN { continue }
                        poller.remove(fd)
                        close(fd)
                    } else if let rest = write(buffer[..<count], to: fd) {
                        unwritten[fd] = rest
                        try poller.modify(fd, token: token(fd), interest: .write)
                    }
                }
            }
        }
    }

    private func accept(_ listener: Int32, _ poller: borrowing Poller) throws {
        while true {
            let fd = Glibc.accept(listener, nil, nil)
            if fd < 0 { return }
            try prepare(fd)
            try poller.add(fd, token: token(fd), interest: .read)
        }
    }

    /// What there was no room for; nil for nothing.
    private func write(_ bytes: ArraySlice<UInt8>, to fd: Int32) -> ArraySlice<UInt8>? {
        let sent = bytes.withUnsafeBytes { send(fd, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        if sent == bytes.count { return nil }
        return sent < 0 && errno != EAGAIN ? nil : bytes.dropFirst(max(0, sent))
    }

    private func token(_ fd: Int32) -> Poller.Token { Poller.Token(slot: UInt32(fd), generation: 0) }
}
