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
        let held = Counter()
        var received = 0
        var filling: (head: PacketHead, memory: UnsafeMutableRawPointer, count: Int)?

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
            _ = output.end()
        }

        while sizes.count < 500 {
            let size = Int.random(
                in: 0..<[10, 300, 20000, 300_000].randomElement(using: &random)!, using: &random)
            let memory = UnsafeMutableRawPointer.allocate(byteCount: size + 1, alignment: 1)
            memory.initializeMemory(
                as: UInt8.self, repeating: UInt8(truncatingIfNeeded: sizes.count), count: size)
            let payload = UnsafeRawBufferPointer(start: memory, count: size)
            if size >= PacketOutput.heldSize {
                output.append(
                    head(UInt64(sizes.count)), held: payload, owner: Owner(of: memory, countedBy: held))
            } else if size > 5000 {
                // In parts, one of which is held.
                output.append(head(UInt64(sizes.count)), payload: size)
                output.append(UnsafeRawBufferPointer(rebasing: payload[..<1000]))
                output.append(
                    held: UnsafeRawBufferPointer(rebasing: payload[1000...]),
                    owner: Owner(of: memory, countedBy: held))
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
        #expect(held.count == 0)
        #expect(input.isBetweenPackets)
    }

    @Test("what is dropped lets go of its owners, and nothing is written any more")
    func dropping() throws {
        let output = PacketOutput()
        let memory = UnsafeMutableRawPointer.allocate(byteCount: 20000, alignment: 1)
        let held = Counter()
        output.append(head(1), UnsafeRawBufferPointer(start: nil, count: 0))
        output.append(
            head(2), held: UnsafeRawBufferPointer(start: memory, count: 20000),
            owner: Owner(of: memory, countedBy: held))
        #expect(held.count == 1)
        output.drop()
        #expect(held.count == 0)
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
        #expect(output.end() == 0)
    }

    /// A large payload may be read to its place without its beginning, and brings little of what follows with it.
    @Test("the beginning of a large payload may be kept apart", arguments: [1, 17, 4000])
    func beginning(skipped: Int) throws {
        let (one, two) = try pair()
        let (target, source) = (try Box(stream(one)), try Box(stream(two)))
        let output = PacketOutput()
        let input = PacketInput(maximum: 1 << 20)
        let sizes = [200_000, 5, 70_000, 100_000, 3]
        for (number, size) in sizes.enumerated() {
            let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &+ number) }
            bytes.withUnsafeBytes { output.append(head(UInt64(number)), $0) }
        }
        var payloads: [[UInt8]] = []
        var filling: (beginning: [UInt8], rest: UnsafeMutableRawBufferPointer)?
        while payloads.count < sizes.count {
            if output.begin() {
                _ = output.write(to: target.stream)
                _ = output.end()
            }
            guard case (.bytes, _) = input.read(from: source.stream) else { continue }
            looking: while true {
                switch try input.next() {
                case .nothing: break looking
                case .packet(_, let payload): payloads.append([UInt8](payload))
                case .large(_, let count):
                    let beginning = try input.beginning(skipped) ?? []
                    let rest = UnsafeMutableRawBufferPointer.allocate(
                        byteCount: count - beginning.count, alignment: 1)
                    try input.place(
                        try #require(rest.baseAddress), count: rest.count, after: beginning.count)
                    filling = (beginning, rest)
                case .filled:
                    let (beginning, rest) = try #require(filling)
                    payloads.append(beginning + [UInt8](rest))
                    rest.deallocate()
                }
            }
        }
        for (number, payload) in payloads.enumerated() {
            #expect(payload == (0..<sizes[number]).map { UInt8(truncatingIfNeeded: $0 &+ number) })
        }
    }

    /// Those that live.
    private final class Counter {
        var count = 0
    }

    /// Memory that is given back with it.
    private final class Owner {
        private let memory: UnsafeMutableRawPointer
        private let counter: Counter

        init(of memory: UnsafeMutableRawPointer, countedBy counter: Counter) {
            self.memory = memory
            self.counter = counter
            counter.count += 1
        }

        deinit {
            memory.deallocate()
            counter.count -= 1
        }
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
