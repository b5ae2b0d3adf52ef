import Beam
import CErlNif
import CPlatform
import Glibc
import Streams
import Synchronization

/// A program that runs for an Erlang process, as the core has it: the node's ends of its pipes, and the connection
/// to its guardian. When the process ends, all are closed, and the guardian ends the program.
final class ProcessStream: Resource, @unchecked Sendable {
    private struct State {
        var control = WatchedDescriptor()
        var input = WatchedDescriptor()
        var output = WatchedDescriptor()
        var error = WatchedDescriptor()
        var queue = InputQueue()
        /// No more is taken; what waits is still written.
        var isInputClosing = false
        /// What a write has failed with.
        var inputError: Errno?
        /// Whether the last byte that was taken ends a line, which a terminal's end of input needs to know.
        var endsLine = true
        var hasLargeInput = false
        var hasLargeOutput = false
    }

    /// Which of the program's outputs.
    enum Output {
        case standard, error

        /// As Erlang has it.
        fileprivate var name: Term { self == .standard ? atoms.stdout : atoms.stderr }
    }

    /// What happens where there is no more to be read.
    enum Attention {
        /// The owner is told when there is: it need not come again before.
        case watch
        /// The owner comes again at once.
        case look
        /// It does, and leaves the processor to the program meanwhile, which may wait for it.
        case yield
    }

    /// How much is read at a time, up to which size it is copied, and how many writes are done in one call.
    private static let largestRead = 65536
    private static let smallRead = 4096
    private static let mostWrites = 16
    /// What a pipe gets that was found full. The default is 64 KB, and what all pipes of a user have is limited.
    private static let largePipe: Int32 = 256 << 10

    private let owner: ErlNifPid
    private let hasTerminal: Bool
    private let state: Mutex<State>

    /// For the process that calls the NIF.
    init(_ env: EnvPointer?, _ ends: consuming ProcessEnds) {
        var owner = ErlNifPid()
        _ = enif_self(env, &owner)
        self.owner = owner
        hasTerminal = ends.hasTerminal
        var state = State()
        state.control = WatchedDescriptor(ends.control)
        if let input = ends.input { state.input = WatchedDescriptor(input) }
        if let output = ends.output { state.output = WatchedDescriptor(output) }
        if let error = ends.error { state.error = WatchedDescriptor(error) }
        self.state = Mutex(state)
    }

    /// The term by which the owner holds it. Nil when memory is short.
    func term(_ env: EnvPointer?) -> Term? {
        guard let term = resourceTypes.process.makeTerm(env, self) else {
            close(env)
            return nil
        }
        if !monitor(env, owner) { close(env) }
        return term
    }

    // MARK: The guardian

    /// What the guardian tells next: an event, `wait` where the owner is told when there is one, or `closed`.
    func event(_ env: EnvPointer?) -> Term {
        state.withLock { state in
            guard state.control.isOpen else { return atoms.closed }
            do throws(Errno) {
                let size = GuardianEvent.mostBytes
                let message = try Descriptor.receive(atMost: size, on: state.control.number)
                // Without a word, or with one that is none, it is lost.
                if let message, let event = try? GuardianEvent(decoding: message.bytes) {
                    return event.term(env)
                }
            } catch {
                if error.code == EAGAIN {
                    watch(env, &state.control, for: atoms.control)
                    return atoms.wait
                }
            }
            state.control.close(env, of: self)
            return atoms.closed
        }
    }

    /// Tells the guardian something. False where there is none any more.
    func tell(_ command: GuardianCommand) -> Bool {
        state.withLock { state in
            guard state.control.isOpen else { return false }
            do throws(Errno) {
                try Descriptor.send(command.encoded, on: state.control.number)
                return true
            } catch { return false }
        }
    }

    private func watch(
        _ env: EnvPointer?, _ descriptor: inout WatchedDescriptor, forWriting: Bool = false, for what: Term
    ) {
        let message = makeTuple(env, atoms.causewayProcess, what)
        descriptor.watch(env, of: self, forWriting: forWriting, owner: owner, message: message)
    }

    // MARK: Its outputs

    /// Reads at most so many bytes: `{ok, Binary}`, `{last, Binary}` where there were no more, `wait` where there are
    /// none, `eof`, or an error, which is as final.
    func read(_ env: EnvPointer?, _ which: Output, atMost limit: Int, _ attention: Attention) -> Term {
        state.withLock { state in
            var descriptor = which == .standard ? state.output : state.error
            defer {
                if which == .standard { state.output = descriptor } else { state.error = descriptor }
            }
            guard descriptor.isOpen else { return atoms.eof }
            let number = descriptor.number
            do throws(Errno) {
                let wanted = min(limit, ProcessStream.largestRead)
                // What is looked for is little, if there is anything.
                let count = attention == .watch ? max(0, Int(cplatform_readable_bytes(number))) : 0
                let isSmall = count <= ProcessStream.smallRead
                let size = min(wanted, isSmall ? ProcessStream.smallRead : count)
                let part = try isSmall ? readSmall(env, number, size) : readLarge(env, number, size)
                if part.size == ProcessStream.largestRead, !state.hasLargeOutput {
                    // It writes faster than we read: then fewer changes between it and us are worth the memory.
                    state.hasLargeOutput = true
                    _ = cplatform_pipe_size(number, ProcessStream.largePipe)
                }
                if part.size > 0 {
                    let isLast = isSmall && part.size < size
                    // What has come since is told, too.
                    if isLast, attention == .watch { watch(env, &descriptor, for: which.name) }
                    return makeTuple(env, isLast ? atoms.last : atoms.ok, part.term)
                }
                end(env, &descriptor, which)
                return atoms.eof
            } catch {
                if error.code == EAGAIN {
                    switch attention {
                    case .watch: watch(env, &descriptor, for: which.name)
                    case .look: break
                    case .yield: _ = sched_yield()
                    }
                    return atoms.wait
                }
                end(env, &descriptor, which)
                return makeError(env, error)
            }
        }
    }

    /// There is no more. A terminal stays: its end is a signal to the program, which may only have closed its outputs.
    private func end(_ env: EnvPointer?, _ descriptor: inout WatchedDescriptor, _ which: Output) {
        if !hasTerminal || which == .error { descriptor.close(env, of: self) }
    }

    private func readSmall(
        _ env: EnvPointer?, _ number: Int32, _ wanted: Int
    ) throws(Errno) -> (size: Int, term: Term) {
        var result: Result<(size: Int, term: Term), Errno> = .failure(Errno(ENOMEM))
        withUnsafeTemporaryAllocation(byteCount: wanted, alignment: 1) { buffer in
            do throws(Errno) {
                let size = try retryingOnInterrupt { Glibc.read(number, buffer.baseAddress, buffer.count) }
                let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<size])
                if let term = makeBinary(env, bytes) { result = .success((size, term)) }
            } catch { result = .failure(error) }
        }
        return try result.get()
    }

    /// Straight into a binary of fitting size.
    private func readLarge(
        _ env: EnvPointer?, _ number: Int32, _ wanted: Int
    ) throws(Errno) -> (size: Int, term: Term) {
        var binary = ErlNifBinary()
        guard enif_alloc_binary(wanted, &binary) != 0 else { throw Errno(ENOMEM) }
        do throws(Errno) {
            let size = try retryingOnInterrupt { Glibc.read(number, binary.data, binary.size) }
            if size < binary.size { _ = enif_realloc_binary(&binary, size) }
            return (size, enif_make_binary(env, &binary))
        } catch {
            enif_release_binary(&binary)
            throw error
        }
    }

    /// How many bytes each output has now, or `eof`.
    func available(_ env: EnvPointer?) -> Term {
        state.withLock { state in
            makeTuple(env, available(env, state.output), available(env, state.error))
        }
    }

    private func available(_ env: EnvPointer?, _ descriptor: WatchedDescriptor) -> Term {
        guard descriptor.isOpen else { return atoms.eof }
        // Looked at first: what was written before the end is in the pipe then.
        var set = pollfd(fd: descriptor.number, events: 0, revents: 0)
        _ = poll(&set, 1, 0)
        let isOver = Int32(truncatingIfNeeded: set.revents) & POLLHUP != 0
        let count = cplatform_readable_bytes(descriptor.number)
        return count <= 0 && isOver ? atoms.eof : enif_make_int(env, max(0, count))
    }

    // MARK: Its input

    /// Writes what there is room for and queues the rest: `{ok, Queued}` in bytes, `{error, closed | Posix}`, or
    /// `badarg` for what is no iodata. With `limit` nothing is taken, and the answer is `busy`, where that much is queued.
    /// From any process.
    func write(_ env: EnvPointer?, _ data: Term, limit: Int) -> Term {
        guard let payload = Payload.make(env, data) else { return atoms.badarg }
        return state.withLock { state in
            if let error = state.inputError { return makeError(env, error) }
            guard state.input.isOpen, !state.isInputClosing else { return makeError(env, atoms.closed) }
            if state.queue.count >= limit { return atoms.busy }
            if hasTerminal, let last = payload.bytes.last { state.endsLine = last == UInt8(ascii: "\n") }
            let isFirst = state.queue.isEmpty
            state.queue.append(payload)
            return isFirst ? flush(env, &state) : queued(env, state)
        }
    }

    /// There may be room again.
    func flush(_ env: EnvPointer?) -> Term { state.withLock { flush(env, &$0) } }

    private func flush(_ env: EnvPointer?, _ state: inout State) -> Term {
        guard state.input.isOpen else {
            return makeError(env, state.inputError.map { makeReason(env, $0) } ?? atoms.closed)
        }
        do throws(Errno) {
            let isFull = try state.queue.write(to: state.input.number, times: ProcessStream.mostWrites)
            if isFull, !state.hasLargeInput {
                state.hasLargeInput = true
                _ = cplatform_pipe_size(state.input.number, ProcessStream.largePipe)
            }
        } catch {
            state.inputError = error
            state.queue.removeAll()
            state.input.close(env, of: self)
            return makeError(env, error)
        }
        if !state.queue.isEmpty {
            watch(env, &state.input, forWriting: true, for: atoms.stdin)
        } else if state.isInputClosing {
            state.input.close(env, of: self)
        }
        return queued(env, state)
    }

    private func queued(_ env: EnvPointer?, _ state: State) -> Term {
        makeTuple(env, atoms.ok, enif_make_long(env, state.queue.count))
    }

    /// Closes the program's standard input when what waits is written. A terminal has its end typed.
    func closeInput(_ env: EnvPointer?) {
        state.withLock { state in
            if hasTerminal, state.input.isOpen, !state.isInputClosing {
                let character = cplatform_end_character(state.input.number)
                // After half a line the first one ends that.
                let end = [UInt8](
                    repeating: UInt8(truncatingIfNeeded: character), count: state.endsLine ? 1 : 2)
                if character >= 0 {
                    let isFirst = state.queue.isEmpty
                    end.withUnsafeBytes { state.queue.append(Payload(copying: $0)) }
                    if isFirst { _ = flush(env, &state) }
                }
            }
            state.isInputClosing = true
            if state.queue.isEmpty { state.input.close(env, of: self) }
        }
    }

    // MARK: Its terminal

    /// Makes the terminal larger or smaller, of which the program is told by SIGWINCH.
    func resize(_ env: EnvPointer?, _ size: ProcessRequest.Terminal) -> Term {
        state.withLock { state in
            guard hasTerminal else { return atoms.noPty }
            guard state.output.isOpen else { return atoms.closed }
            let number = state.output.number
            do throws(Errno) {
                _ = try retryingOnInterrupt { cplatform_resize_terminal(number, size.rows, size.columns) }
                return atoms.ok
            } catch { return makeError(env, error) }
        }
    }

    // MARK: The end

    /// Nobody wants that output any more: the program cannot write it.
    func closeOutput(_ env: EnvPointer?, _ which: Output) {
        state.withLock { state in
            switch which {
            case .standard: state.output.close(env, of: self)
            case .error: state.error.close(env, of: self)
            }
        }
    }

    /// Closes all. The guardian ends what still runs. Any number of times.
    func close(_ env: EnvPointer?) {
        state.withLock { state in
            state.queue.removeAll()
            state.control.close(env, of: self)
            state.input.close(env, of: self)
            state.output.close(env, of: self)
            state.error.close(env, of: self)
        }
    }

    override func selectStopped(_ descriptor: Int32) { _ = Glibc.close(descriptor) }

    override func monitoredProcessDown(_ env: EnvPointer?) { close(env) }

    // The BEAM holds the object while it watches any of them, so none is watched here.
    override func unreferenced(_ env: EnvPointer?) { close(env) }
}

extension GuardianEvent {
    /// `{started, Pid}`, `{failed, Step, Posix, Detail}`, `{exited, {status, Code} | {signal, Number, HasDumpedCore},
    /// IsAlone}` or `gone`.
    fileprivate func term(_ env: EnvPointer?) -> Term {
        switch self {
        case .started(let pid): return makeTuple(env, atoms.started, enif_make_int(env, pid))
        case .failed(let step, let error, let detail):
            let text = detail.withUnsafeBytes { makeBinary(env, $0) } ?? atoms.undefined
            let reason = makeReason(env, Errno(error))
            return makeTuple(env, atoms.failed, Atom(env, step.name).term, reason, text)
        case .exited(let status, let isAlone):
            let end = status.endTerm(env)
            return makeTuple(env, atoms.exited, end, isAlone ? atoms.true : atoms.false)
        case .gone: return atoms.gone
        }
    }
}

extension GuardianEvent.Step {
    /// The option of `causeway_process_stream` that asked for it, or what else it was.
    var name: StaticString {
        switch self {
        case .clone, .fork: "fork"
        case .session, .descriptors, .request: "start"
        case .joinGroup, .controlGroup: "cgroup"
        case .limit: "rlimits"
        case .nice: "nice"
        case .directory: "cd"
        case .groups: "groups"
        case .group: "gid"
        case .user: "uid"
        case .exec: "exec"
        case .terminal: "pty"
        case .input: "stdin"
        case .output: "stdout"
        case .error: "stderr"
        }
    }
}

extension Int32 {
    /// How a process has ended, of what `wait(2)` tells.
    fileprivate func endTerm(_ env: EnvPointer?) -> Term {
        if cplatform_has_exited(self) != 0 {
            return makeTuple(env, atoms.status, enif_make_int(env, cplatform_exit_status(self)))
        }
        let core = cplatform_has_dumped_core(self) != 0 ? atoms.true : atoms.false
        return makeTuple(env, atoms.signal, enif_make_int(env, cplatform_end_signal(self)), core)
    }
}
