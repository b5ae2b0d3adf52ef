import CPlatform
import Glibc
import Streams

/// All that is found, opened and counted before a program is started.
struct Launch {
    private let request: ProcessRequest
    private let identity: Identity
    private let limits: [cplatform_limit]
    private let directory: SharedDescriptor
    /// Its controlling terminal.
    private let terminal: SharedDescriptor?
    /// What becomes its descriptors 0 to 2.
    private var stdio: [SharedDescriptor] = []
    /// What it has beside those.
    private let inherited: [SharedDescriptor]

    /// `passed` are the ends of those that come with the request.
    init(
        _ request: ProcessRequest, directory: SharedDescriptor, passed: ArraySlice<SharedDescriptor>
    ) throws(Failure) {
        self.request = request
        self.directory = directory
        identity = try Identity(request)
        limits = try Launch.limits(request)
        guard request.inherited.allSatisfy({ $0 > 2 && $0 < .max }) else {
            throw Failure(.descriptors, EBADF)
        }
        var left = passed.dropLast(request.inherited.count)
        inherited = Array(passed.suffix(request.inherited.count))
        guard inherited.count == request.inherited.count else { throw Failure(.descriptors, EBADF) }
        terminal = request.terminal == nil ? nil : left.popFirst()
        let each: [(ProcessRequest.Stdio, GuardianEvent.Step)] = [
            (request.input, .input), (request.output, .output), (request.error, .error),
        ]
        for (wanted, step) in each { stdio.append(try open(wanted, step, &left)) }
    }

    private func open(
        _ wanted: ProcessRequest.Stdio, _ step: GuardianEvent.Step,
        _ passed: inout ArraySlice<SharedDescriptor>
    ) throws(Failure) -> SharedDescriptor {
        switch wanted {
        case .passed:
            guard let next = passed.popFirst() else { throw Failure(step, EBADF) }
            return next
        case .sameAsOutput:
            guard step == .error, let output = stdio.last else { throw Failure(step, EINVAL) }
            return output
        case .terminal:
            guard let terminal else { throw Failure(step, EINVAL, "there is no terminal") }
            return terminal
        case .null: return try open(Array("/dev/null".utf8), O_RDWR, step)
        case .file(let path, let isAppended):
            if step == .input { return try open(path, O_RDONLY, step) }
            return try open(path, O_WRONLY | O_CREAT | (isAppended ? O_APPEND : O_TRUNC), step)
        }
    }

    private func open(
        _ path: [UInt8], _ flags: Int32, _ step: GuardianEvent.Step
    ) throws(Failure) -> SharedDescriptor {
        let strings = try Strings([path], step)
        guard let name = strings.first else { throw Failure(step, EINVAL) }
        do throws(Errno) {
            // A named pipe that nobody reads would make us wait, and miss the end of the node.
            let flags = flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK
            let number = try retryingOnInterrupt { openat(directory.number, name, flags, 0o666) }
            let file = SharedDescriptor(number)
            _ = cplatform_set_status_flags(number, cplatform_status_flags(number) & ~O_NONBLOCK)
            return file
        } catch { throw Failure(step, error.code, String(decoding: path, as: UTF8.self)) }
    }

    private static func limits(_ request: ProcessRequest) throws(Failure) -> [cplatform_limit] {
        var limits: [cplatform_limit] = []
        for limit in request.limits {
            let name = String(decoding: limit.name, as: UTF8.self)
            guard let resource = resources[name].map({ Int32(truncatingIfNeeded: $0.rawValue) }) else {
                throw Failure(.limit, EINVAL, "there is no limit \(name)")
            }
            limits.append(cplatform_limit(resource: resource, soft: limit.soft, hard: limit.hard))
        }
        return limits
    }

    private static var resources: [String: __rlimit_resource] {
        [
            "as": RLIMIT_AS, "core": RLIMIT_CORE, "cpu": RLIMIT_CPU, "data": RLIMIT_DATA,
            "fsize": RLIMIT_FSIZE, "memlock": __RLIMIT_MEMLOCK, "msgqueue": __RLIMIT_MSGQUEUE,
            "nice": __RLIMIT_NICE,
            "nofile": RLIMIT_NOFILE, "nproc": __RLIMIT_NPROC, "rss": __RLIMIT_RSS, "rtprio": __RLIMIT_RTPRIO,
            "sigpending": __RLIMIT_SIGPENDING, "stack": RLIMIT_STACK,
        ]
    }

    /// Starts the program. It runs when this returns.
    func run(in group: borrowing ControlGroup?) throws(Failure) -> pid_t {
        let path = try Strings([request.path], .exec)
        let arguments = try Strings(request.arguments, .exec)
        let shell = try Strings(
            [Array("/bin/sh".utf8), request.path] + request.arguments.dropFirst(), .exec)
        let environment = try Strings(request.environment, .exec)
        let change = try Strings(request.directory.map { [$0] } ?? [], .directory)
        let members = try group?.openMembers() ?? []
        let memberNumbers = members.map(\.number)
        let groups = identity.groups ?? []
        var launch = cplatform_launch()
        launch.path = path.first
        launch.arguments = arguments.pointer
        launch.shell_arguments = shell.pointer
        launch.environment = environment.pointer
        launch.stdio = (
            stdio[0].number, stdio[1].number, stdio[2].number
        )
        launch.terminal = terminal?.number ?? -1
        launch.directory = directory.number
        launch.change_to = change.first
        launch.cgroup_count = Int32(clamping: memberNumbers.count)
        launch.limit_count = Int32(clamping: limits.count)
        launch.group_count = identity.groups == nil ? -1 : Int32(clamping: groups.count)
        launch.uid = identity.user.map(Int64.init) ?? -1
        launch.gid = identity.group.map(Int64.init) ?? -1
        launch.mask = request.mask.map(Int64.init) ?? -1
        launch.has_nice = request.nice == nil ? 0 : 1
        launch.nice = request.nice ?? 0
        var inheritedNumbers = inherited.map(\.number)
        launch.inherited_count = Int32(clamping: inheritedNumbers.count)
        // The new process has our memory until it executes; then we go on.
        let pid = inheritedNumbers.withUnsafeMutableBufferPointer { inherited in
            request.inherited.withUnsafeBufferPointer { numbers in
                launch.inherited = inherited.baseAddress
                launch.inherited_as = numbers.baseAddress
                return start(&launch, memberNumbers, groups)
            }
        }
        for member in members { member.close() }
        if launch.failed_step == 0 { return pid }
        if pid > 0 { _ = try? retryingOnInterrupt { waitpid(pid, nil, 0) } }
        let step = UInt8(exactly: launch.failed_step).flatMap(GuardianEvent.Step.init(rawValue:)) ?? .clone
        throw Failure(step, launch.failed_errno, detail(step, launch.failed_errno))
    }

    private func start(_ launch: inout cplatform_launch, _ members: [Int32], _ groups: [UInt32]) -> pid_t {
        members.withUnsafeBufferPointer { members in
            limits.withUnsafeBufferPointer { limits in
                groups.withUnsafeBufferPointer { groups in
                    launch.cgroups = members.baseAddress
                    launch.limits = limits.baseAddress
                    launch.groups = groups.baseAddress
                    return withUnsafeTemporaryAllocation(byteCount: 64 << 10, alignment: 16) { stack in
                        cplatform_start(&launch, stack.baseAddress, stack.count)
                    }
                }
            }
        }
    }

    /// Closes all that the program has by now.
    func close() {
        for descriptor in stdio + inherited { descriptor.close() }
        terminal?.close()
        directory.close()
    }

    private func detail(_ step: GuardianEvent.Step, _ error: Int32) -> String {
        switch step {
        case .directory: request.directory.map { String(decoding: $0, as: UTF8.self) } ?? ""
        case .groups where error == EPERM, .group where error == EPERM, .user where error == EPERM:
            "only root may run a program as somebody else"
        default: ""
        }
    }
}

/// Texts as C has them: an array that ends in NULL, freed with this.
private struct Strings: ~Copyable {
    private let memory: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
    private let count: Int

    /// A text with a NUL in it is none for C.
    init(_ texts: [[UInt8]], _ step: GuardianEvent.Step) throws(Failure) {
        for text in texts where text.contains(0) { throw Failure(step, EINVAL, "a text has a NUL in it") }
        count = texts.count
        memory = .allocate(capacity: count + 1)
        for (index, text) in texts.enumerated() {
            let copy = UnsafeMutablePointer<CChar>.allocate(capacity: text.count + 1)
            for (place, byte) in text.enumerated() { copy[place] = CChar(bitPattern: byte) }
            copy[text.count] = 0
            (memory + index).initialize(to: copy)
        }
        (memory + count).initialize(to: nil)
    }

    deinit {
        for index in 0..<count { memory[index]?.deallocate() }
        memory.deallocate()
    }

    /// The array.
    var pointer: UnsafePointer<UnsafeMutablePointer<CChar>?> { UnsafePointer(memory) }
    /// The first of them; NULL where there is none.
    var first: UnsafePointer<CChar>? { UnsafePointer(memory[0]) }
}
