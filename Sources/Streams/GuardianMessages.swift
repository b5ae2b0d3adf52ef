/// What a guardian tells the node of the program that it looks after. Each is one message.
public enum GuardianEvent: Equatable, Sendable {
    /// The program runs.
    case started(pid: Int32)
    /// It does not. `detail` is what could not be found or used, where that is not plain from the step.
    case failed(step: Step, error: Int32, detail: [UInt8])
    /// The program has ended, as `wait(2)` tells it. `isAlone`: nothing that it has started is left either, and this is
    /// the last message.
    case exited(status: Int32, isAlone: Bool)
    /// No process of it is left, and no control group. The last message, after an `exited` that was not.
    case gone

    /// At what starting failed.
    public enum Step: UInt8, Sendable, CaseIterable {
        // Those that the code between clone and exec names, by its numbers.
        case clone = 1, session, descriptors, joinGroup, limit, nice, directory, groups, group, user, exec
        case terminal
        // Those before.
        case fork = 32, request, input, output, error, controlGroup
    }

    /// The event as bytes.
    public var encoded: [UInt8] {
        var wire = WireWriter()
        switch self {
        case .started(let pid):
            wire.put(UInt8(1))
            wire.put(pid)
        case .failed(let step, let error, let detail):
            wire.put(UInt8(2))
            wire.put(step.rawValue)
            wire.put(error)
            wire.put(detail)
        case .exited(let status, let isAlone):
            wire.put(UInt8(3))
            wire.put(status)
            wire.put(isAlone)
        case .gone: wire.put(UInt8(4))
        }
        return wire.bytes
    }

    /// From bytes. Throws where they are no such message.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        var wire = WireReader(bytes)
        let kind: UInt8 = try wire.number()
        switch kind {
        case 1: self = .started(pid: try wire.number())
        case 2:
            guard let step = Step(rawValue: try wire.number()) else { throw WireError() }
            self = .failed(step: step, error: try wire.number(), detail: try wire.text())
        case 3: self = .exited(status: try wire.number(), isAlone: try wire.bool())
        case 4: self = .gone
        default: throw WireError()
        }
        try wire.end()
    }

    /// No event has more bytes.
    public static let mostBytes = 4096 + 16
    /// And no detail has more.
    public static let mostDetail = 4096
}

/// What the node asks of a guardian. The end of the connection asks for `end`.
public enum GuardianCommand: Equatable, Sendable {
    /// Sends a signal, while the program runs.
    case signal(Int32, to: Target)
    /// Ends all processes that are left: SIGTERM, the delay, SIGKILL.
    case end

    /// Who gets a signal.
    public enum Target: UInt8, Sendable, CaseIterable {
        /// The program.
        case program
        /// Its process group.
        case group
        /// It and all that it has started.
        case tree
    }

    /// The command as bytes.
    public var encoded: [UInt8] {
        var wire = WireWriter()
        switch self {
        case .signal(let number, let target):
            wire.put(UInt8(1))
            wire.put(number)
            wire.put(target.rawValue)
        case .end: wire.put(UInt8(2))
        }
        return wire.bytes
    }

    /// From bytes. Throws where they are no such message.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        var wire = WireReader(bytes)
        let kind: UInt8 = try wire.number()
        switch kind {
        case 1:
            let number: Int32 = try wire.number()
            guard let target = Target(rawValue: try wire.number()) else { throw WireError() }
            self = .signal(number, to: target)
        case 2: self = .end
        default: throw WireError()
        }
        try wire.end()
    }

    /// No command has more bytes.
    public static let mostBytes = 16
}
