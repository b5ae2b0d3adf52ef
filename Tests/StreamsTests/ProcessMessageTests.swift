import Glibc
import Testing

@testable import Streams

@Suite("What node and guardian tell each other")
struct ProcessMessageTests {
    /// A request with something in every place.
    private func full() -> ProcessRequest {
        var request = ProcessRequest()
        request.path = Array("/bin/sh".utf8)
        request.arguments = [Array("sh".utf8), [], [0xFF, 0x00, 0x80]]
        request.environment = [Array("A=1".utf8), Array("B=".utf8)]
        request.directory = Array("/tmp".utf8)
        request.user = .name(Array("nobody".utf8))
        request.group = .number(65534)
        request.groups = [.number(.max), .name([])]
        request.mask = 0o027
        request.nice = -20
        request.limits = [.init(name: Array("nofile".utf8), soft: 10, hard: .max)]
        request.delayToKill = .max
        request.inherited = [3, .max]
        request.input = .terminal
        request.terminal = .init(rows: 1, columns: .max)
        request.output = .file(path: Array("/tmp/out".utf8), isAppended: true)
        request.error = .sameAsOutput
        request.controlGroup = .init(
            isUnified: true, path: Array("a/b".utf8), controllers: [Array("memory".utf8)],
            settings: [.init(controller: [1], key: [2], value: [3])])
        return request
    }

    @Test("a request is the same on the other side")
    func request() throws {
        for request in [full(), ProcessRequest()] {
            #expect(try ProcessRequest(decoding: request.encoded) == request)
        }
    }

    @Test("numbers keep their least significant byte first")
    func layout() {
        #expect(GuardianEvent.started(pid: 0x0102_0304).encoded == [1, 4, 3, 2, 1])
        #expect(GuardianEvent.exited(status: -1, isAlone: true).encoded == [3, 255, 255, 255, 255, 1])
        #expect(GuardianCommand.signal(15, to: .tree).encoded == [1, 15, 0, 0, 0, 2])
    }

    @Test("a request that is cut off anywhere, or too long, is refused")
    func cutOff() {
        let bytes = full().encoded
        for count in 0..<bytes.count {
            #expect(throws: WireError.self) { try ProcessRequest(decoding: Array(bytes.prefix(count))) }
        }
        #expect(throws: WireError.self) { try ProcessRequest(decoding: bytes + [0]) }
    }

    @Test("a request with any byte changed is refused or another one, and asks for no memory")
    func changed() {
        let bytes = full().encoded
        for place in bytes.indices {
            for value in [0x00, 0x01, 0x7F, 0xFF] as [UInt8] {
                var other = bytes
                other[place] = value
                guard let request = try? ProcessRequest(decoding: other) else { continue }
                #expect(request.encoded == other)
            }
        }
    }

    @Test("events are the same on the other side, and others are refused")
    func events() throws {
        let failures = GuardianEvent.Step.allCases.map {
            GuardianEvent.failed(step: $0, error: 2, detail: [1, 2])
        }
        let events: [GuardianEvent] = [
            .started(pid: .max), .exited(status: 0x8F, isAlone: false), .exited(status: 0, isAlone: true),
            .gone,
        ]
        for event in events + failures {
            #expect(try GuardianEvent(decoding: event.encoded) == event)
            #expect(throws: WireError.self) { try GuardianEvent(decoding: event.encoded + [0]) }
            #expect(throws: WireError.self) { try GuardianEvent(decoding: Array(event.encoded.dropLast())) }
        }
        #expect(throws: WireError.self) { try GuardianEvent(decoding: [9]) }
        #expect(throws: WireError.self) { try GuardianEvent(decoding: [2, 200, 0, 0, 0, 0, 0, 0, 0, 0]) }
        let longest = GuardianEvent.failed(
            step: .exec, error: 1, detail: [UInt8](repeating: 7, count: GuardianEvent.mostDetail))
        #expect(longest.encoded.count <= GuardianEvent.mostBytes)
    }

    @Test("commands are the same on the other side, and others are refused")
    func commands() throws {
        let signals = GuardianCommand.Target.allCases.map { GuardianCommand.signal(9, to: $0) }
        for command in signals + [.end] {
            #expect(try GuardianCommand(decoding: command.encoded) == command)
            #expect(command.encoded.count <= GuardianCommand.mostBytes)
            #expect(throws: WireError.self) { try GuardianCommand(decoding: command.encoded + [0]) }
        }
        #expect(throws: WireError.self) { try GuardianCommand(decoding: []) }
        #expect(throws: WireError.self) { try GuardianCommand(decoding: [1, 9, 0, 0, 0, 3]) }
    }
}

@Suite("Messages with descriptors")
struct DescriptorMessageTests {
    @Test("a descriptor arrives, under a number of its own, and is closed with what it came in")
    func arrives() throws {
        let sockets = try Descriptor.messageSockets()
        try withPipe { ends in
            try sockets.first.send([7, 8], with: [ends.writer])
            ends.closeWriter()
            var message = try sockets.second.receive(atMost: 10)
            #expect(message?.bytes == [7, 8])
            guard let number = message?.descriptors.first?.number else {
                Issue.record("no descriptor came")
                return
            }
            #expect(closesOnExec(number))
            #expect(write(number, "x", 1) == 1)
            #expect(ends.receive() == 1)
            message = nil
            #expect(ends.receive() == 0)
        }
    }

    @Test("messages keep their boundaries; without one there is EAGAIN, and nil at the end")
    func boundaries() throws {
        let sockets = try Descriptor.messageSockets()
        try sockets.first.send([1, 2, 3])
        try sockets.first.send([4])
        #expect(try sockets.second.receive(atMost: 10)?.bytes == [1, 2, 3])
        #expect(try sockets.second.receive(atMost: 10)?.bytes == [4])
        #expect(throws: Errno(EAGAIN)) { try sockets.second.receive(atMost: 10)?.bytes }
        let second = sockets.takeSecond()
        #expect(try second.receive(atMost: 10)?.bytes == nil)
        #expect(throws: Errno(EPIPE)) { try second.send([1]) }
    }

    @Test("sending never waits")
    func full() throws {
        let sockets = try Descriptor.messageSockets()
        #expect(throws: Errno(EAGAIN)) {
            while true { try sockets.first.send([UInt8](repeating: 0, count: 4096)) }
        }
    }

    @Test("more descriptors than a message can have are refused")
    func many() throws {
        let sockets = try Descriptor.messageSockets()
        #expect(throws: Errno(EINVAL)) {
            try sockets.first.send([1], with: [Int32](repeating: 0, count: 100))
        }
    }
}
