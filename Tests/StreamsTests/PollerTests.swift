import Glibc
import Synchronization
import Testing

@testable import Streams

@Suite("Poller")
struct PollerTests {
    private typealias Token = Poller.Token

    /// What a wait found, as values that outlive it.
    private func events(_ poller: borrowing Poller, milliseconds: Int32 = 0) -> [Poller.Event] {
        let count = poller.wait(milliseconds: milliseconds)
        return (0..<count).map { poller.event($0) }
    }

    /// What a wait found, by token.
    private func tokens(_ poller: borrowing Poller, milliseconds: Int32 = 0) -> [UInt64] {
        events(poller, milliseconds: milliseconds).map(\.token.bits)
    }

    /// The error that a closure throws.
    private func error(_ body: () throws(Errno) -> Void) -> Errno? {
        do throws(Errno) {
            try body()
            return nil
        } catch {
            return error
        }
    }

    // MARK: Time

    @Test(
        "a wait is as long as it is to be, also below a millisecond",
        arguments: [1, 200_000, 3_500_000] as [Int64])
    func waits(nanoseconds: Int64) throws {
        let poller = try Poller(capacity: 1)
        let before = monotonicNanoseconds()
        let count = poller.wait(nanoseconds: nanoseconds)
        #expect(count == 0)
        #expect(monotonicNanoseconds() - before >= nanoseconds)
    }

    @Test("what is ready ends a wait of any length", arguments: [-1, 0, 1, 2_000_000_000] as [Int64])
    func ready(nanoseconds: Int64) throws {
        let poller = try Poller(capacity: 1)
        try withPipe { ends in
            try poller.add(ends.reader, token: Token(bits: 5), interest: .read)
            ends.send()
            let count = poller.wait(nanoseconds: nanoseconds)
            #expect(count == 1)
        }
    }

    // MARK: Tokens

    @Test("a token is its place and its generation", arguments: [0, 1, 77, .max - 1, .max] as [UInt32])
    func tokenParts(slot: UInt32) {
        for generation in [0, 1, 99, UInt32.max] {
            let token = Token(slot: slot, generation: generation)
            #expect(token.slot == slot)
            #expect(token.generation == generation)
            #expect(Token(bits: token.bits) == token)
            #expect(token != Token(slot: slot, generation: generation &+ 1))
            #expect(token != Token(slot: slot &+ 1, generation: generation))
        }
    }

    @Test(
        "an event has the token that its member was added with", arguments: [0, 1, 1 << 63, .max] as [UInt64])
    func eventToken(bits: UInt64) throws {
        let poller = try Poller(capacity: 4)
        try withPipe { ends in
            try poller.add(ends.reader, token: Token(bits: bits), interest: .read)
            ends.send()
            let found = tokens(poller)
            #expect(found == [bits])
        }
    }

    @Test("each of many members is told apart")
    func manyMembers() throws {
        let poller = try Poller(capacity: 64)
        let counters = try (0..<20).map { _ in try ownEventfd() }
        defer { for counter in counters { close(counter) } }
        for (index, counter) in counters.enumerated() {
            try poller.add(counter, token: Token(slot: UInt32(index), generation: 3), interest: .read)
        }
        let none = tokens(poller)
        #expect(none.isEmpty)
        for index in stride(from: 0, to: 20, by: 3) {
            var one: UInt64 = 1
            #expect(write(counters[index], &one, 8) == 8)
        }
        let found = events(poller)
        #expect(found.map(\.token.slot).sorted() == [0, 3, 6, 9, 12, 15, 18])
        #expect(found.allSatisfy { $0.token.generation == 3 && $0.isReadable && !$0.isWritable })
    }

    @Test("reports no more at a time than it has room for, and the others the next time")
    func capacity() throws {
        let poller = try Poller(capacity: 2)
        let counters = try (0..<5).map { _ in try ownEventfd() }
        defer { for counter in counters { close(counter) } }
        for (index, counter) in counters.enumerated() {
            try poller.add(counter, token: Token(bits: UInt64(index)), interest: .read)
            var one: UInt64 = 1
            #expect(write(counter, &one, 8) == 8)
        }
        var seen: Set<UInt64> = []
        // Nothing is read: all five stay ready, and yet everybody's turn comes.
        for _ in 0..<5 {
            let found = tokens(poller)
            #expect(found.count == 2)
            seen.formUnion(found)
        }
        #expect(seen.count == 5)
    }

    @Test("a poller without room reports nothing", arguments: [0])
    func noCapacity(capacity: Int) throws {
        let poller = try Poller(capacity: capacity)
        try withPipe { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: .read)
            ends.send()
            let count = poller.wait(milliseconds: 0)
            #expect(count == 0)
        }
    }

    // MARK: Generations

    @Test("an event that was found before its descriptor was closed and used again reaches nobody")
    func staleEvent() throws {
        let poller = try Poller(capacity: 8)
        var table = SlotTable<Int32>()
        // Two are ready at the same time; who serves the first closes the second and takes its number.
        let numbers = try [ownEventfd(), ownEventfd()]
        for number in numbers {
            let token = try insert(number, into: &table)
            try poller.add(number, token: token, interest: .read)
            var one: UInt64 = 1
            #expect(write(number, &one, 8) == 8)
        }
        let found = events(poller)
        try #require(found.count == 2)
        let victim = found[1].token
        let number = try #require(table[victim])
        poller.remove(number)
        table.remove(victim)
        close(number)
        let replacement = try ownEventfd()
        try #require(dup2(replacement, number) == number)
        close(replacement)
        let token = try insert(number, into: &table)
        try poller.add(number, token: token, interest: .read)
        // The same place and the same number, and yet:
        #expect(token.slot == victim.slot)
        #expect(table[found[1].token] == nil)
        #expect(table[found[0].token] != nil)
        // The new one is heard under its own name.
        var one: UInt64 = 1
        #expect(write(number, &one, 8) == 8)
        let later = tokens(poller)
        #expect(later.contains(token.bits))
        #expect(!later.contains(victim.bits))
        for number in numbers { close(number) }
    }

    @Test("the events of a descriptor that was closed while a duplicate lives are void by their generation")
    func closedWithDuplicate() throws {
        let poller = try Poller(capacity: 8)
        var table = SlotTable<String>()
        try withPipe { ends in
            let number = try moveToOwnNumber(dup(ends.reader))
            let token = try insert("closed", into: &table)
            try poller.add(number, token: token, interest: .read)
            table.remove(token)
            // Closed without `remove`: the kernel keeps the member while the open file lives.
            close(number)
            let next = try insert("next", into: &table)
            #expect(next.slot == token.slot)
            ends.send()
            let found = events(poller)
            #expect(found.map(\.token) == [token])
            for event in found { #expect(table[event.token] == nil) }
        }
    }

    // MARK: Errors

    @Test("refuses a regular file and a directory", arguments: ["/proc/self/exe", "/"])
    func regularFile(path: String) throws {
        let poller = try Poller(capacity: 1)
        let file = open(path, O_RDONLY)
        try #require(file >= 0)
        defer { close(file) }
        for interest in [Poller.Interest.read, .write, .nothing] {
            let thrown = error { () throws(Errno) in
                try poller.add(file, token: Token(bits: 1), interest: interest)
            }
            #expect(thrown == Errno(EPERM))
        }
    }

    @Test("refuses a number that is not open", arguments: [-1, Int32.min, Int32.max])
    func notOpen(number: Int32) throws {
        let poller = try Poller(capacity: 1)
        let token = Token(bits: 1)
        let added = error { () throws(Errno) in try poller.add(number, token: token, interest: .read) }
        #expect(added == Errno(EBADF))
        let changed = error { () throws(Errno) in try poller.modify(number, token: token, interest: .read) }
        #expect(changed == Errno(EBADF))
        poller.remove(number)
    }

    @Test("refuses a number that was closed")
    func closed() throws {
        let poller = try Poller(capacity: 1)
        let number = try ownEventfd()
        close(number)
        let thrown = error { () throws(Errno) in
            try poller.add(number, token: Token(bits: 1), interest: .read)
        }
        #expect(thrown == Errno(EBADF))
    }

    @Test("refuses a second entry of the same descriptor, and keeps the first")
    func addedTwice() throws {
        let poller = try Poller(capacity: 4)
        try withPipe { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: .read)
            let thrown = error { () throws(Errno) in
                try poller.add(ends.reader, token: Token(bits: 2), interest: .write)
            }
            #expect(thrown == Errno(EEXIST))
            ends.send()
            let found = tokens(poller)
            #expect(found == [1])
        }
    }

    @Test("refuses to change what it does not have")
    func unknown() throws {
        let poller = try Poller(capacity: 4)
        try withPipe { ends in
            func change() -> Errno? {
                error { () throws(Errno) in
                    try poller.modify(ends.reader, token: Token(bits: 1), interest: .read)
                }
            }
            #expect(change() == Errno(ENOENT))
            poller.remove(ends.reader)
            try poller.add(ends.reader, token: Token(bits: 1), interest: .read)
            #expect(change() == nil)
            poller.remove(ends.reader)
            poller.remove(ends.reader)
            #expect(change() == Errno(ENOENT))
        }
    }

    @Test("refuses itself")
    func itself() throws {
        let poller = try Poller(capacity: 4)
        let number = poller.descriptor
        let thrown = error { () throws(Errno) in
            try poller.add(number, token: Token(bits: 1), interest: .read)
        }
        #expect(thrown == Errno(EINVAL))
    }

    // MARK: Interests

    @Test("told to read it reports what there is to read, as long as there is")
    func reading() throws {
        let poller = try Poller(capacity: 4)
        try withSockets { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: .read)
            let before = events(poller)
            #expect(before.isEmpty)
            ends.send(2)
            // Level-triggered: again and again until all is read.
            for _ in 0..<2 {
                let found = events(poller)
                #expect(found.count == 1)
                #expect(found.allSatisfy { $0.isReadable && !$0.isWritable && !$0.isHungUp })
                ends.receive()
            }
            let after = events(poller)
            #expect(after.isEmpty)
        }
    }

    @Test("told to write it reports room, and none where there is none")
    func writing() throws {
        let poller = try Poller(capacity: 4)
        try withSockets { ends in
            try poller.add(ends.writer, token: Token(bits: 1), interest: .write)
            let empty = events(poller)
            #expect(empty.count == 1)
            #expect(empty.allSatisfy { $0.isWritable && !$0.isReadable && !$0.isHungUp })
            let block = [UInt8](repeating: 1, count: 65_536)
            while write(ends.writer, block, block.count) > 0 {}
            #expect(Errno.last() == Errno(EAGAIN))
            let full = events(poller)
            #expect(full.isEmpty)
            while ends.receive(65_536) > 0 {}
            let again = events(poller)
            #expect(again.count == 1)
        }
    }

    @Test("told of nothing it reports neither")
    func nothing() throws {
        let poller = try Poller(capacity: 4)
        try withSockets { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: .nothing)
            ends.send()
            let found = events(poller)
            #expect(found.isEmpty)
        }
    }

    @Test("told of something else it reports that, under the new token")
    func modify() throws {
        let poller = try Poller(capacity: 4)
        try withSockets { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: .nothing)
            ends.send()
            try poller.modify(ends.reader, token: Token(bits: 2), interest: .read)
            let readable = events(poller)
            #expect(readable.map(\.token.bits) == [2])
            #expect(readable.allSatisfy { $0.isReadable && !$0.isWritable })
            try poller.modify(ends.reader, token: Token(bits: 3), interest: .write)
            let writable = events(poller)
            #expect(writable.map(\.token.bits) == [3])
            #expect(writable.allSatisfy { $0.isWritable && !$0.isReadable })
            try poller.modify(ends.reader, token: Token(bits: 4), interest: .nothing)
            let neither = events(poller)
            #expect(neither.isEmpty)
            try poller.modify(ends.reader, token: Token(bits: 5), interest: .read)
            let again = tokens(poller)
            #expect(again == [5])
        }
    }

    @Test("reports nothing of what was taken out")
    func remove() throws {
        let poller = try Poller(capacity: 4)
        try withPipe { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: .read)
            ends.send()
            poller.remove(ends.reader)
            let found = events(poller)
            #expect(found.isEmpty)
            try poller.add(ends.reader, token: Token(bits: 2), interest: .read)
            let again = tokens(poller)
            #expect(again == [2])
        }
    }

    // MARK: Hang-up

    private static let interests: [Poller.Interest] = [.read, .write, .nothing]

    @Test("tells that the writer of a pipe is gone, whatever it was told to wait for", arguments: interests)
    func writerGone(interest: Poller.Interest) throws {
        let poller = try Poller(capacity: 4)
        try withPipe { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: interest)
            let before = events(poller)
            #expect(before.isEmpty)
            ends.closeWriter()
            let found = events(poller)
            #expect(found.count == 1)
            #expect(found.allSatisfy { $0.isHungUp && $0.isReadable && $0.isWritable })
            #expect(ends.receive() == 0)
        }
    }

    @Test("tells that the reader of a pipe is gone", arguments: interests)
    func readerGone(interest: Poller.Interest) throws {
        let poller = try Poller(capacity: 4)
        try withPipe { ends in
            try poller.add(ends.writer, token: Token(bits: 1), interest: interest)
            ends.closeReader()
            let found = events(poller)
            #expect(found.count == 1)
            #expect(found.allSatisfy { $0.isHungUp && $0.isReadable && $0.isWritable })
        }
    }

    @Test("tells that the peer of a local socket is gone", arguments: interests)
    func peerGone(interest: Poller.Interest) throws {
        let poller = try Poller(capacity: 4)
        try withSockets { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: interest)
            ends.closeWriter()
            let found = events(poller)
            #expect(found.count == 1)
            #expect(found.allSatisfy { $0.isHungUp && $0.isReadable && $0.isWritable })
            #expect(ends.receive() == 0)
        }
    }

    @Test("what was sent before a hang-up is still there")
    func dataBeforeHangUp() throws {
        let poller = try Poller(capacity: 4)
        try withPipe { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: .read)
            ends.send(3)
            ends.closeWriter()
            let found = events(poller)
            #expect(found.count == 1)
            #expect(found.allSatisfy { $0.isReadable && $0.isHungUp })
            #expect(ends.receive(10) == 3)
            #expect(ends.receive(10) == 0)
        }
    }

    @Test("one direction that is over is something to read, not a hang-up")
    func halfClose() throws {
        let poller = try Poller(capacity: 4)
        try withSockets { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: .read)
            #expect(shutdown(ends.writer, Int32(SHUT_WR)) == 0)
            let found = events(poller)
            #expect(found.count == 1)
            #expect(found.allSatisfy { $0.isReadable && !$0.isHungUp })
            #expect(ends.receive() == 0)
            try poller.modify(ends.reader, token: Token(bits: 1), interest: .write)
            let writable = events(poller)
            #expect(writable.allSatisfy { $0.isWritable && !$0.isReadable })
        }
    }

    @Test("tells that a TCP peer has reset the connection", arguments: interests)
    func reset(interest: Poller.Interest) throws {
        let poller = try Poller(capacity: 4)
        try withTCP { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: .nothing)
            var option = linger(l_onoff: 1, l_linger: 0)
            let size = socklen_t(MemoryLayout<linger>.size)
            #expect(setsockopt(ends.writer, SOL_SOCKET, SO_LINGER, &option, size) == 0)
            ends.closeWriter()
            let first = tokens(poller, milliseconds: Int32(patience) * 1000)
            #expect(first == [1])
            try poller.modify(ends.reader, token: Token(bits: 2), interest: interest)
            let found = events(poller)
            #expect(found.map(\.token.bits) == [2])
            #expect(found.allSatisfy { $0.isHungUp && $0.isReadable && $0.isWritable })
        }
    }

    // MARK: Waiting

    @Test("a wait ends at its limit where nothing happens", arguments: [0, 1, 3] as [Int32])
    func timeOut(milliseconds: Int32) throws {
        let poller = try Poller(capacity: 4)
        let start = monotonicNanoseconds()
        let count = poller.wait(milliseconds: milliseconds)
        let elapsed = monotonicNanoseconds() - start
        #expect(count == 0)
        // The kernel's clock of time-outs may be a tick behind.
        #expect(elapsed >= Int64(milliseconds) * 900_000)
    }

    @Test("a wait without limit ends with an event of another thread")
    func wokenByEvent() throws {
        let poller = try Poller(capacity: 4)
        try withSockets { ends in
            try poller.add(ends.reader, token: Token(bits: 7), interest: .read)
            let writer = ends.writer
            let permission = Signal()
            let thread = TestThread {
                for _ in 0..<500 {
                    permission.wait()
                    _ = write(writer, "x", 1)
                }
            }
            for _ in 0..<500 {
                permission.post()
                let found = tokens(poller, milliseconds: -1)
                if found != [7] { Issue.record("\(found)") }
                if ends.receive() != 1 { Issue.record("nothing to read") }
            }
            thread.join()
        }
    }

    @Test("a signal ends a wait with nothing")
    func interrupted() throws {
        installInterruption()
        let count = Atomic<Int>(-1)
        let thread = TestThread {
            guard let poller = try? Poller(capacity: 1) else { return }
            count.store(poller.wait(milliseconds: -1), ordering: .sequentiallyConsistent)
        }
        eventually {
            thread.interrupt()
            return count.load(ordering: .sequentiallyConsistent) != -1
        }
        thread.join()
        #expect(count.load(ordering: .sequentiallyConsistent) == 0)
    }

    // MARK: The set's own descriptor

    @Test("its descriptor can be read while a member is ready, and is closed on exec")
    func nested() throws {
        let poller = try Poller(capacity: 4)
        let outer = try Poller(capacity: 4)
        let number = poller.descriptor
        #expect(closesOnExec(number))
        try outer.add(number, token: Token(bits: 9), interest: .read)
        try withPipe { ends in
            try poller.add(ends.reader, token: Token(bits: 1), interest: .read)
            let before = tokens(outer)
            #expect(before.isEmpty)
            ends.send()
            let ready = tokens(outer)
            #expect(ready == [9])
            // Looking does not take it away; reading does.
            let inner = tokens(poller)
            #expect(inner == [1])
            ends.receive()
            let after = tokens(outer)
            #expect(after.isEmpty)
        }
    }

    @Test("its descriptor is closed when it ends")
    func end() throws {
        // A set whose last descriptor is closed leaves the set that it is a member of: so it shows without
        // its number, which another test may have by then.
        let outer = try Poller(capacity: 4)
        try withPipe { ends in
            ends.send()
            do {
                let poller = try Poller(capacity: 4)
                try poller.add(ends.reader, token: Token(bits: 1), interest: .read)
                try outer.add(poller.descriptor, token: Token(bits: 2), interest: .read)
                let ready = tokens(outer)
                #expect(ready == [2])
                end(poller)
            }
            let after = tokens(outer)
            #expect(after.isEmpty)
        }
    }

    private func end(_ poller: consuming Poller) {}

    @Test("release leaves the descriptor and its members")
    func release() throws {
        let outer = try Poller(capacity: 4)
        try withPipe { ends in
            let poller = try Poller(capacity: 4)
            try poller.add(ends.reader, token: Token(bits: 1), interest: .read)
            let expected = poller.descriptor
            let number = poller.release()
            #expect(number == expected)
            try outer.add(number, token: Token(bits: 2), interest: .read)
            ends.send()
            let ready = tokens(outer)
            #expect(ready == [2])
            close(number)
            let after = tokens(outer)
            #expect(after.isEmpty)
        }
    }
}
