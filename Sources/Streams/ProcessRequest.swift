import CPlatform

/// What a program is started with, as a node asks a guardian for it. Texts are bytes as the system has them.
public struct ProcessRequest: Equatable, Sendable {
    /// What the program's descriptors 0 to 2 are.
    public enum Stdio: Equatable, Sendable {
        /// An end of a pipe or terminal that comes with the request.
        case passed
        /// /dev/null.
        case null
        /// A file that is opened for reading, or made and written, from its beginning or at its end.
        case file(path: [UInt8], isAppended: Bool)
        /// For standard error: the same as standard output.
        case sameAsOutput
        /// The program's terminal.
        case terminal
    }

    /// How large a terminal is, in characters.
    public struct Terminal: Equatable, Sendable {
        /// Its height.
        public var rows: UInt16
        /// Its width.
        public var columns: UInt16

        /// A size.
        public init(rows: UInt16, columns: UInt16) {
            self.rows = rows
            self.columns = columns
        }
    }

    /// A user or a group.
    public enum Account: Equatable, Sendable {
        /// By its number.
        case number(UInt32)
        /// By its name.
        case name([UInt8])
    }

    /// A limit of resources, by its name in `getrlimit(2)` without RLIMIT_, in small letters.
    public struct Limit: Equatable, Sendable {
        /// Its name.
        public var name: [UInt8]
        /// What the program may use, and what it may raise that to. All bits set are no limit.
        public var soft, hard: UInt64

        /// A limit.
        public init(name: [UInt8], soft: UInt64, hard: UInt64) {
            self.name = name
            self.soft = soft
            self.hard = hard
        }
    }

    /// A file of a control group and what is written to it.
    public struct Setting: Equatable, Sendable {
        /// Of which controller the file is, for version 1.
        public var controller: [UInt8]
        /// The file.
        public var key: [UInt8]
        /// What it gets.
        public var value: [UInt8]

        /// A setting.
        public init(controller: [UInt8] = [], key: [UInt8], value: [UInt8]) {
            self.controller = controller
            self.key = key
            self.value = value
        }
    }

    /// A control group that is made for the program and removed with it.
    public struct ControlGroup: Equatable, Sendable {
        /// Whether it is one of version 2: otherwise there is one for each controller.
        public var isUnified: Bool
        /// Below the root of the hierarchy. The last part must not exist, those before are made.
        public var path: [UInt8]
        /// What version 1 makes groups for, and version 2 must have.
        public var controllers: [[UInt8]]
        /// What is set before the program starts.
        public var settings: [Setting]

        /// A control group.
        public init(isUnified: Bool, path: [UInt8], controllers: [[UInt8]], settings: [Setting]) {
            self.isUnified = isUnified
            self.path = path
            self.controllers = controllers
            self.settings = settings
        }
    }

    /// The program's file, and what it gets as arguments, the first being its name.
    public var path: [UInt8] = []
    /// See `path`.
    public var arguments: [[UInt8]] = []
    /// All of its environment, as `NAME=value`.
    public var environment: [[UInt8]] = []
    /// Where it runs, seen from the directory that comes with the request; nil there.
    public var directory: [UInt8]?
    /// As whom; nil as the node.
    public var user, group: Account?
    /// Its other groups; nil those of the user, or the node's where there is no user.
    public var groups: [Account]?
    /// What is taken from the permissions of the files that it makes.
    public var mask: UInt32?
    /// Its niceness.
    public var nice: Int32?
    /// What it may use.
    public var limits: [Limit] = []
    /// How many milliseconds its processes have after SIGTERM.
    public var delayToKill: UInt32 = 500
    /// Its standard input, output and error.
    public var input = Stdio.passed, output = Stdio.passed, error = Stdio.passed
    /// By which numbers, above 2, it has the descriptors that come with the request after all others.
    public var inherited: [Int32] = []
    /// How many these are at most.
    public static let mostInherited = Int(cplatform_most_inherited)
    /// Its controlling terminal, whose end comes with the request; nil for none.
    public var terminal: Terminal?
    /// Its control group.
    public var controlGroup: ControlGroup?

    /// A request for nothing.
    public init() {}
}

// MARK: As bytes

extension ProcessRequest {
    /// The request as bytes.
    public var encoded: [UInt8] {
        var wire = WireWriter()
        wire.put(path)
        wire.put(arguments) { $0.put($1) }
        wire.put(environment) { $0.put($1) }
        wire.put(directory) { $0.put($1) }
        wire.put(user) { $1.write(to: &$0) }
        wire.put(group) { $1.write(to: &$0) }
        wire.put(groups) { $0.put($1) { $1.write(to: &$0) } }
        wire.put(mask) { $0.put($1) }
        wire.put(nice) { $0.put($1) }
        wire.put(limits) { $1.write(to: &$0) }
        wire.put(delayToKill)
        for stdio in [input, output, error] { stdio.write(to: &wire) }
        wire.put(inherited) { $0.put($1) }
        wire.put(terminal) {
            $0.put($1.rows)
            $0.put($1.columns)
        }
        wire.put(controlGroup) { $1.write(to: &$0) }
        return wire.bytes
    }

    /// From bytes. Throws where they are no request.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        var wire = WireReader(bytes)
        path = try wire.text()
        arguments = try wire.list { wire throws(WireError) in try wire.text() }
        environment = try wire.list { wire throws(WireError) in try wire.text() }
        directory = try wire.optional { wire throws(WireError) in try wire.text() }
        user = try wire.optional { wire throws(WireError) in try Account(from: &wire) }
        group = try wire.optional { wire throws(WireError) in try Account(from: &wire) }
        groups = try wire.optional { wire throws(WireError) in
            try wire.list { wire throws(WireError) in try Account(from: &wire) }
        }
        mask = try wire.optional { wire throws(WireError) in try wire.number() }
        nice = try wire.optional { wire throws(WireError) in try wire.number() }
        limits = try wire.list { wire throws(WireError) in try Limit(from: &wire) }
        delayToKill = try wire.number()
        input = try Stdio(from: &wire)
        output = try Stdio(from: &wire)
        error = try Stdio(from: &wire)
        inherited = try wire.list { wire throws(WireError) in try wire.number() }
        terminal = try wire.optional { wire throws(WireError) in
            Terminal(rows: try wire.number(), columns: try wire.number())
        }
        controlGroup = try wire.optional { wire throws(WireError) in try ControlGroup(from: &wire) }
        try wire.end()
    }
}

extension ProcessRequest.Stdio {
    fileprivate func write(to wire: inout WireWriter) {
        switch self {
        case .passed: wire.put(UInt8(0))
        case .null: wire.put(UInt8(1))
        case .file(let path, let isAppended):
            wire.put(UInt8(2))
            wire.put(path)
            wire.put(isAppended)
        case .sameAsOutput: wire.put(UInt8(3))
        case .terminal: wire.put(UInt8(4))
        }
    }

    fileprivate init(from wire: inout WireReader) throws(WireError) {
        let kind: UInt8 = try wire.number()
        switch kind {
        case 0: self = .passed
        case 1: self = .null
        case 2: self = .file(path: try wire.text(), isAppended: try wire.bool())
        case 3: self = .sameAsOutput
        case 4: self = .terminal
        default: throw WireError()
        }
    }
}

extension ProcessRequest.Account {
    fileprivate func write(to wire: inout WireWriter) {
        switch self {
        case .number(let number):
            wire.put(true)
            wire.put(number)
        case .name(let name):
            wire.put(false)
            wire.put(name)
        }
    }

    fileprivate init(from wire: inout WireReader) throws(WireError) {
        self = try wire.bool() ? .number(try wire.number()) : .name(try wire.text())
    }
}

extension ProcessRequest.Limit {
    fileprivate func write(to wire: inout WireWriter) {
        wire.put(name)
        wire.put(soft)
        wire.put(hard)
    }

    fileprivate init(from wire: inout WireReader) throws(WireError) {
        self.init(name: try wire.text(), soft: try wire.number(), hard: try wire.number())
    }
}

extension ProcessRequest.Setting {
    fileprivate func write(to wire: inout WireWriter) {
        wire.put(controller)
        wire.put(key)
        wire.put(value)
    }

    fileprivate init(from wire: inout WireReader) throws(WireError) {
        self.init(controller: try wire.text(), key: try wire.text(), value: try wire.text())
    }
}

extension ProcessRequest.ControlGroup {
    fileprivate func write(to wire: inout WireWriter) {
        wire.put(isUnified)
        wire.put(path)
        wire.put(controllers) { $0.put($1) }
        wire.put(settings) { $1.write(to: &$0) }
    }

    fileprivate init(from wire: inout WireReader) throws(WireError) {
        self.init(
            isUnified: try wire.bool(), path: try wire.text(),
            controllers: try wire.list { wire throws(WireError) in try wire.text() },
            settings: try wire.list { wire throws(WireError) in try ProcessRequest.Setting(from: &wire) })
    }
}
