import Glibc
import Synchronization
import Testing

@testable import Streams

@Suite("Descriptor")
struct DescriptorTests {
    // MARK: Closing

    @Test("is closed when its owner ends, not before")
    func scope() throws {
        let number = try ownEventfd()
        do {
            let descriptor = Descriptor(owning: number)
            #expect(isOpen(descriptor.number))
            #expect(descriptor.number == number)
        }
        #expect(!isOpen(number))
    }

    @Test("the other end of a pipe sees the close")
    func otherEnd() throws {
        try withPipe { ends in
            let writer = try Descriptor.duplicate(ends.writer)
            ends.closeWriter()
            let written = write(writer.number, "x", 1)
            #expect(written == 1)
            #expect(ends.receive() == 1)
            drop(writer)
            #expect(ends.receive() == 0)
        }
    }

    private func drop(_ descriptor: consuming Descriptor) {}

    private func pass(_ descriptor: consuming Descriptor) -> Descriptor { descriptor }

    private final class Owner {
        var descriptor: Descriptor?
        init(_ descriptor: consuming Descriptor) { self.descriptor = consume descriptor }
    }

    /// Runs a closure that closes the number, then gives the number to a stranger and ends the scope in which
    /// the number was owned. The stranger must survive.
    private func closingOnce(_ closing: (Int32) throws -> Void) throws {
        let number = try ownEventfd()
        try closing(number)
        #expect(isOpen(number), "a second close has hit a stranger")
        close(number)
    }

    /// Takes the number of a descriptor that must be closed.
    private func occupy(_ number: Int32) throws {
        #expect(!isOpen(number))
        let stranger = try ownEventfd()
        try #require(dup2(stranger, number) == number)
        close(stranger)
    }

    @Test("is closed once when it is moved to a function that ends it")
    func closedByFunction() throws {
        try closingOnce { number in
            let descriptor = Descriptor(owning: number)
            drop(descriptor)
            try occupy(number)
        }
    }

    @Test("is closed once when it is moved through several owners")
    func closedByLastOwner() throws {
        try closingOnce { number in
            let descriptor = Descriptor(owning: number)
            var holder: Descriptor? = pass(pass(descriptor))
            #expect(isOpen(number))
            if let taken = holder.take() { drop(taken) }
            try occupy(number)
            holder = nil
        }
    }

    @Test("is closed once when the object that holds it ends")
    func closedByObject() throws {
        try closingOnce { number in
            var owner: Owner? = Owner(Descriptor(owning: number))
            let another = owner
            owner = nil
            #expect(isOpen(number))
            another?.descriptor = nil
            try occupy(number)
            withExtendedLifetime(another) {}
        }
    }

    @Test("is closed once where it is thrown out of its scope")
    func closedByThrow() throws {
        try closingOnce { number in
            func fail() throws(Errno) {
                let descriptor = Descriptor(owning: number)
                if isOpen(descriptor.number) { throw Errno(EIO) }
                drop(descriptor)
            }
            #expect(throws: Errno(EIO)) { try fail() }
            try occupy(number)
        }
    }

    @Test("is closed once when the thread that it was given to ends it")
    func closedByThread() throws {
        try closingOnce { number in
            let cell = Mutex<Descriptor?>(Descriptor(owning: number))
            onThreads(4) { _ in
                let taken = cell.withLock { $0.take() }
                if let taken { drop(taken) }
            }
            try occupy(number)
        }
    }

    private func drop(_ descriptor: consuming Descriptor?) {}

    @Test("replacing it closes the one that was there")
    func replaced() throws {
        let one = try ownEventfd()
        let two = try ownEventfd()
        var descriptor = Descriptor(owning: one)
        descriptor = Descriptor(owning: two)
        #expect(!isOpen(one))
        #expect(isOpen(two))
        drop(descriptor)
        #expect(!isOpen(two))
    }

    @Test("owning what is not open does no harm", arguments: [-1, Int32.min, Int32.max])
    func notOpen(number: Int32) {
        let descriptor = Descriptor(owning: number)
        #expect(descriptor.number == number)
    }

    @Test("release gives the number up and leaves it open")
    func release() throws {
        let number = try ownEventfd()
        do {
            let descriptor = Descriptor(owning: number)
            let released = descriptor.release()
            #expect(released == number)
        }
        #expect(isOpen(number))
        drop(Descriptor(owning: number))
        #expect(!isOpen(number))
    }

    // MARK: Not blocking

    @Test("after makeNonBlocking a read of nothing returns at once, however often it is made so")
    func nonBlocking() throws {
        try withPipe { ends in
            let reader = try Descriptor.duplicate(ends.reader)
            #expect(fcntl(ends.reader, F_GETFL) & O_NONBLOCK == 0)
            try reader.makeNonBlocking()
            try reader.makeNonBlocking()
            var byte: UInt8 = 0
            let count = read(reader.number, &byte, 1)
            let error = Errno.last()
            #expect(count == -1)
            #expect(error == Errno(EAGAIN))
            ends.send()
            let second = read(reader.number, &byte, 1)
            #expect(second == 1)
        }
    }

    @Test("makeNonBlocking keeps the other flags")
    func otherFlags() throws {
        try withPipe { ends in
            #expect(fcntl(ends.writer, F_SETFL, O_APPEND) == 0)
            let before = fcntl(ends.writer, F_GETFL)
            let writer = try Descriptor.duplicate(ends.writer)
            try writer.makeNonBlocking()
            #expect(fcntl(ends.writer, F_GETFL) == before | O_NONBLOCK)
        }
    }

    @Test("makeNonBlocking throws where the number is not open")
    func nonBlockingOfNothing() throws {
        let descriptor = Descriptor(owning: -1)
        var error: Errno?
        do throws(Errno) { try descriptor.makeNonBlocking() } catch let thrown { error = thrown }
        #expect(error == Errno(EBADF))
    }

    // MARK: Kinds

    @Test("knows sockets of every family")
    func sockets() throws {
        let local = try withSockets { try Descriptor.kind(of: $0.reader) }
        #expect(local == .socket)
        let stream = try withTCP { try Descriptor.kind(of: $0.reader) }
        #expect(stream == .socket)
        let datagram = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(datagram) }
        #expect(try Descriptor.kind(of: datagram) == .datagramSocket)
        let unconnected = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(unconnected) }
        #expect(try Descriptor.kind(of: unconnected) == .socket)
        #expect(listen(unconnected, 1) == 0)
        #expect(try Descriptor.kind(of: unconnected) == .listener)
    }

    @Test("knows devices that no poller takes as files")
    func devices() throws {
        let null = open("/dev/null", O_RDWR)
        defer { close(null) }
        #expect(try Descriptor.kind(of: null) == .file)
    }

    @Test("knows streams, and that a poller takes them")
    func streams() throws {
        let poller = try Poller(capacity: 4)
        let set = poller.descriptor
        #expect(try Descriptor.kind(of: set) == .stream)
        let counter = try ownEventfd()
        defer { close(counter) }
        #expect(try Descriptor.kind(of: counter) == .stream)
        try poller.add(counter, token: .init(bits: 1), interest: .read)
        try withPipe { ends in
            #expect(try Descriptor.kind(of: ends.reader) == .stream)
            #expect(try Descriptor.kind(of: ends.writer) == .stream)
            try poller.add(ends.reader, token: .init(bits: 2), interest: .read)
            try poller.add(ends.writer, token: .init(bits: 3), interest: .write)
        }
    }

    @Test("knows a terminal")
    func terminal() throws {
        let terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY)
        // A machine without any (a container without devpts) has nothing to test here.
        guard terminal >= 0 else { return }
        defer { close(terminal) }
        #expect(try Descriptor.kind(of: terminal) == .stream)
        let poller = try Poller(capacity: 1)
        try poller.add(terminal, token: .init(bits: 1), interest: .read)
    }

    @Test("knows files and directories", arguments: ["/proc/self/exe", "/", "/proc/self/stat"])
    func files(path: String) throws {
        let file = open(path, O_RDONLY)
        try #require(file >= 0)
        defer { close(file) }
        #expect(try Descriptor.kind(of: file) == .file)
    }

    @Test("throws for a number that is not open", arguments: [-1, Int32.min, Int32.max])
    func kindOfNothing(number: Int32) {
        #expect(throws: Errno(EBADF)) { try Descriptor.kind(of: number) }
    }

    @Test("throws for a number that was closed, and asks without owning")
    func kindOfClosed() throws {
        let number = try ownEventfd()
        #expect(try Descriptor.kind(of: number) == .stream)
        #expect(isOpen(number))
        close(number)
        #expect(throws: Errno(EBADF)) { try Descriptor.kind(of: number) }
    }

    // MARK: Duplicates

    @Test("a duplicate is another number of the same open file, closed on exec")
    func duplicate() throws {
        let original = try moveToOwnNumber(open("/proc/self/exe", O_RDONLY))
        defer { close(original) }
        #expect(!closesOnExec(original))
        let duplicate = try Descriptor.duplicate(original)
        let number = duplicate.number
        #expect(number != original)
        #expect(number > 2)
        #expect(closesOnExec(number))
        // One open file has one position.
        #expect(lseek(original, 123, SEEK_SET) == 123)
        #expect(lseek(number, 0, SEEK_CUR) == 123)
        drop(duplicate)
        #expect(isOpen(original))
    }

    @Test("a duplicate outlives the original")
    func duplicateAlone() throws {
        try withPipe { ends in
            let reader = try Descriptor.duplicate(ends.reader)
            ends.closeReader()
            ends.send()
            var byte: UInt8 = 0
            let count = read(reader.number, &byte, 1)
            #expect(count == 1)
        }
    }

    @Test("throws where there is nothing to duplicate", arguments: [-1, Int32.max])
    func duplicateOfNothing(number: Int32) {
        #expect(throws: Errno(EBADF)) { _ = try Descriptor.duplicate(number) }
    }
}
