import Glibc
import Testing

@testable import Streams

@Suite("Packets on a stream")
struct PacketStreamTests {
    private func pair() throws -> (Int32, Int32) {
        var fds: [Int32] = [0, 0]
        #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &fds) == 0)
        return (fds[0], fds[1])
    }

    private func stream(_ number: Int32) throws -> PacketStream {
        try PacketStream(owning: Descriptor(owning: number))
    }

    private func head(_ tag: UInt64) -> PacketHead {
        PacketHead(isRequest: true, channel: tag % 3, tag: tag, flags: tag % 5, requestType: 1)
    }

    /// Packets of random sizes, some copied and some held, through a socket that is often full.
    @Test("what goes in comes out, whatever has room when", arguments: 0..<10)
    func roundTrip(seed: Int) throws {
        var random = Randomness(seed: seed)
        let (one, two) = try pair()
        let (target, source) = (try Box(stream(one)), try Box(stream(two)))
        let output = PacketOutput()
        let input = PacketInput(maximum: 1 << 20)
        var sizes: [Int] = []
        var held: Set<UnsafeMutableRawPointer> = []
        var received = 0
        var filling: (head: PacketHead, memory: UnsafeMutableRawPointer, count: Int)?
        defer { for memory in held { memory.deallocate() } }

        func check(_ head: PacketHead, _ payload: UnsafeRawBufferPointer) {
            #expect(head == self.head(UInt64(received)))
            #expect(payload.count == sizes[received])
            #expect(payload.allSatisfy { $0 == UInt8(truncatingIfNeeded: received) })
            received += 1
        }
        func receive() throws {
            guard case (.bytes(let count), _) = input.read(from: source.stream), count > 0 else { return }
            while true {
                switch try input.next() {
                case .nothing: return
                case .packet(let head, let payload): check(head, payload)
                case .large(let head, let count):
                    let memory = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 1)
                    try input.place(memory, count: count)
                    filling = (head, memory, count)
                case .filled:
                    let (head, memory, count) = try #require(filling)
                    check(head, UnsafeRawBufferPointer(start: memory, count: count))
                    memory.deallocate()
                    filling = nil
                }
            }
        }
        func write() {
            guard output.begin() else { return }
            if case .failed(let error) = output.write(to: target.stream) { Issue.record("\(error)") }
            for owner in output.end().owners {
                #expect(held.remove(owner) != nil)
                owner.deallocate()
            }
        }

        while sizes.count < 500 {
            let size = Int.random(
                in: 0..<[10, 300, 20000, 300_000].randomElement(using: &random)!, using: &random)
            let memory = UnsafeMutableRawPointer.allocate(byteCount: size + 1, alignment: 1)
            memory.initializeMemory(
                as: UInt8.self, repeating: UInt8(truncatingIfNeeded: sizes.count), count: size)
            let payload = UnsafeRawBufferPointer(start: memory, count: size)
            if size >= PacketOutput.heldSize {
                held.insert(memory)
                output.append(head(UInt64(sizes.count)), held: payload, owner: memory)
            } else {
                output.append(head(UInt64(sizes.count)), payload)
                memory.deallocate()
            }
            sizes.append(size)
            if Bool.random(using: &random) { write() }
            if Bool.random(using: &random) { try receive() }
        }
        while received < sizes.count {
            write()
            try receive()
        }
        #expect(output.size == 0)
        #expect(held.isEmpty)
        #expect(input.isBetweenPackets)
    }

    @Test("what is dropped gives its owners back, and nothing is written any more")
    func dropping() throws {
        let output = PacketOutput()
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 20000, alignment: 1)
        defer { memory.deallocate() }
        output.append(head(1), UnsafeRawBufferPointer(start: nil, count: 0))
        output.append(head(2), held: UnsafeRawBufferPointer(start: memory, count: 20000), owner: memory)
        #expect(output.drop() == [memory])
        #expect(output.size == 0)
        #expect(!output.begin())
    }

    @Test("an error of the stream is told")
    func failing() throws {
        let (one, two) = try pair()
        let target = try Box(stream(one))
        close(two)
        let output = PacketOutput()
        output.append(head(1), UnsafeRawBufferPointer(start: nil, count: 0))
        #expect(output.begin())
        guard case .failed(let error) = output.write(to: target.stream) else {
            Issue.record("it was written")
            return
        }
        #expect(error == Errno(EPIPE))
        #expect(output.end().written == 0)
    }

    /// A value that cannot be copied, for closures.
    private final class Box {
        let stream: PacketStream
        init(_ stream: consuming PacketStream) { self.stream = stream }
    }
}

@Suite("DeadlineHeap")
struct DeadlineHeapTests {
    @Test("gives what is due, the earliest first", arguments: 0..<10)
    func order(seed: Int) {
        var random = Randomness(seed: seed)
        var heap = DeadlineHeap()
        #expect(heap.first == .max)
        let deadlines = (0..<300).map { _ in Int64.random(in: 0..<100, using: &random) }
        for (key, deadline) in deadlines.enumerated() { heap.insert(deadline, UInt64(key)) }
        heap.keep { $0 % 3 != 0 }
        #expect(heap.count == 200)
        var last: Int64 = 0
        var seen: Set<UInt64> = []
        while let key = heap.popFirst(before: 49) {
            let deadline = deadlines[Int(key)]
            #expect(deadline >= last && deadline <= 49)
            last = deadline
            seen.insert(key)
        }
        let expected = deadlines.indices.filter { $0 % 3 != 0 && deadlines[$0] <= 49 }.map(UInt64.init)
        #expect(seen == Set(expected))
        #expect(heap.first > 49)
    }
}
