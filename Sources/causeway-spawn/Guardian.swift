import CPlatform
import Glibc
import Streams

/// Why a program could not be started.
struct Failure: Error {
    let step: GuardianEvent.Step
    let error: Int32
    let detail: String

    init(_ step: GuardianEvent.Step, _ error: Int32, _ detail: String = "") {
        self.step = step
        self.error = error
        self.detail = detail
    }
}

/// Looks after one program and all that it starts: none of it outlives the connection to the node.
struct Guardian: ~Copyable {
    private let control: SharedDescriptor
    private let signals: Signals
    private var delay: Int64 = 0
    private var program: pid_t = -1
    /// As `wait` tells it, once the program has ended.
    private var status: Int32?
    private var isTold = false
    private var controlGroup: ControlGroup?

    /// What a new fork of the helper does. The message is the request. Its descriptors are the connection, the
    /// directory to start in, the file of a request that is too large, and the ends of the program's pipes.
    static func run(_ message: Descriptor.Message) -> Never {
        _ = cplatform_be_subreaper()
        cplatform_set_name("causeway-guard")
        guard let control = message.descriptors.first, let signals = Signals() else { _exit(1) }
        var guardian = Guardian(control: control, signals: signals)
        guardian.serve(message)
        _exit(0)
    }

    /// Does what starting a program does, up to that. What Swift's runtime finds out about types when they are used
    /// for the first time, which takes longer than all the rest, is there in every fork then.
    static func rehearse() {
        var request = ProcessRequest()
        request.path = Array("/".utf8)
        request.arguments = [request.path]
        request.environment = [request.path]
        (request.input, request.output, request.error) = (.null, .null, .null)
        guard let decoded = try? ProcessRequest(decoding: request.encoded) else { return }
        let here = open("/", Int32(truncatingIfNeeded: cplatform_path_only) | O_DIRECTORY | O_CLOEXEC)
        if here < 0 { return }
        if let launch = try? Launch(decoded, directory: SharedDescriptor(here), passed: []) {
            // A directory is no program: it fails where it would be executed.
            let group: ControlGroup? = nil
            _ = try? launch.run(in: group)
            launch.close()
        }
        let events: [GuardianEvent] = [
            .started(pid: 0), .failed(step: .exec, error: 0, detail: []),
            .exited(status: 0, isAlone: true),
        ]
        for event in events { _ = event.encoded }
    }

    private init(control: SharedDescriptor, signals: consuming Signals) {
        self.control = control
        self.signals = signals
    }

    private mutating func serve(_ message: Descriptor.Message) {
        do throws(Failure) {
            try start(message)
        } catch {
            controlGroup?.end()
            let detail = error.detail.utf8.prefix(GuardianEvent.mostDetail)
            return tell(.failed(step: error.step, error: error.error, detail: Array(detail)))
        }
        tell(.started(pid: program))
        watch()
        controlGroup?.end()
        if let status, !isTold { tell(.exited(status: status, isAlone: true)) } else { tell(.gone) }
    }

    private mutating func start(_ message: Descriptor.Message) throws(Failure) {
        var descriptors = message.descriptors.dropFirst()
        guard let directory = descriptors.popFirst() else { throw Failure(.request, EINVAL) }
        let file = message.bytes.count == 1 ? descriptors.popFirst() : nil
        let request: ProcessRequest
        do throws(WireError) {
            request = try ProcessRequest(decoding: file?.bytes ?? message.bytes)
        } catch { throw Failure(.request, EINVAL) }
        file?.close()
        delay = Int64(request.delayToKill)
        let launch = try Launch(request, directory: directory, passed: descriptors)
        if let wanted = request.controlGroup {
            controlGroup = ControlGroup(wanted)
            try controlGroup?.make()
        }
        program = try launch.run(in: controlGroup)
        // Nobody but the program holds its pipes, so that their end is seen.
        launch.close()
    }

    /// Until no process is left.
    private mutating func watch() {
        var isEnding = false
        while true {
            wait(for: control.number, signals.number, milliseconds: -1)
            if signals.take() { isEnding = true }
            if !reap() { return }
            if takeCommands() { isEnding = true }
            if isEnding { return end() }
        }
    }

    /// Takes what the node asks for. True where that is the end.
    private func takeCommands() -> Bool {
        while true {
            do throws(Errno) {
                guard
                    let message = try Descriptor.receive(
                        atMost: GuardianCommand.mostBytes, on: control.number)
                else {
                    return true
                }
                guard let command = try? GuardianCommand(decoding: message.bytes) else { return true }
                switch command {
                case .end: return true
                case .signal(let number, let target): send(number, to: target)
                }
            } catch { return error.code != EAGAIN }
        }
    }

    private func send(_ number: Int32, to target: GuardianCommand.Target) {
        switch target {
        // Until we have waited for it, the number is its own.
        case .program: if status == nil { _ = kill(program, number) }
        case .group: if status == nil { _ = kill(-program, number) }
        case .tree:
            for relative in ProcessTree.descendants(of: getpid()) { ProcessTree.signal(relative, number) }
        }
    }

    /// Waits for the processes that have ended. False when none is left.
    private mutating func reap() -> Bool {
        var isLeft = true
        while true {
            var status: Int32 = 0
            let pid = waitpid(-1, &status, WNOHANG)
            if pid == program { self.status = status }
            if pid <= 0 {
                isLeft = pid == 0
                break
            }
        }
        // Where none is left, that is told in the end.
        if let status, !isTold, isLeft {
            isTold = true
            tell(.exited(status: status, isAlone: false))
        }
        return isLeft
    }

    /// Ends all processes: first asks them, then kills until none is left.
    private mutating func end() {
        let me = getpid()
        if delay > 0 {
            for relative in ProcessTree.descendants(of: me) {
                ProcessTree.signal(relative, SIGTERM)
                // Who was stopped would not see it.
                ProcessTree.signal(relative, SIGCONT)
            }
            let limit = monotonicNanoseconds() / 1_000_000 + delay
            while true {
                let left = limit - monotonicNanoseconds() / 1_000_000
                if left <= 0 { break }
                if !pause(milliseconds: Int32(clamping: left)) { return }
            }
        }
        var pauses: Int32 = 1
        repeat {
            ProcessTree.freezeAndKill {
                ProcessTree.children(of: me).map { Relative(pid: $0, parent: me) }
            }
            // What cannot end now, in the kernel, is looked after less and less often.
            pauses = min(pauses * 2, 200)
        } while pause(milliseconds: pauses)
    }

    /// Waits for the end of some process. False when none is left.
    private mutating func pause(milliseconds: Int32) -> Bool {
        if !reap() { return false }
        wait(for: -1, signals.number, milliseconds: milliseconds)
        _ = signals.take()
        return reap()
    }

    private func tell(_ event: GuardianEvent) {
        // Where the node is gone, nobody wants to know.
        try? Descriptor.send(event.encoded, on: control.number)
    }
}

extension SharedDescriptor {
    /// All bytes of a file, into memory of fitting size: every page that a guardian touches is one of its own.
    fileprivate var bytes: [UInt8] {
        let size = lseek(number, 0, SEEK_END)
        guard size > 0 else { return [] }
        return [UInt8](unsafeUninitializedCapacity: Int(size)) { buffer, count in
            count = max(0, pread(number, buffer.baseAddress, buffer.count, 0))
        }
    }
}
