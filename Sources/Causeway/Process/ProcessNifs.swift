import Beam
import CErlNif
import Glibc
import Streams

/// The Erlang half of process streams. Messages to the owner are `{causeway_process, control | stdin | stdout | stderr}`:
/// the function that asked for it is to be called again.
var processNifs: [ErlNifFunc] {
    [
        /// process_helper(Path) -> ok | {error, Posix}. The caller is told `{causeway, {helper, ok | {error, Posix}}}`.
        nif("process_helper", 1) { env, _, arguments in
            guard let arguments, let path = text(env, arguments[0]) else { return enif_make_badarg(env) }
            var requester = ErlNifPid()
            _ = enif_self(env, &requester)
            do throws(Errno) {
                try ProcessHelper.shared.start(path: path, requester: requester)
                return atoms.ok
            } catch { return makeError(env, error) }
        },
        /// process_open(Request) -> {ok, Process} | busy | gone | {error, Posix} | badarg
        ///
        /// Whether the program could be started, `process_event` tells. `gone`: there is no helper.
        nif("process_open", 1) { env, _, arguments in
            guard let arguments, let request = ProcessRequest(env, arguments[0]) else { return atoms.badarg }
            guard let helper = ProcessHelper.shared.current else { return atoms.gone }
            do throws(Errno) {
                let process = ProcessStream(env, try helper.launch(request))
                return process.term(env).map { makeTuple(env, atoms.ok, $0) } ?? atoms.badarg
            } catch {
                switch error.code {
                // The second is that of too many descriptors on their way.
                case EAGAIN, ETOOMANYREFS: return atoms.busy
                case EPIPE, ECONNRESET:
                    ProcessHelper.shared.lost(helper)
                    return atoms.gone
                default: return makeError(env, error)
                }
            }
        },
        /// process_event(Process) -> {started, Pid} | {failed, Step, Posix, Detail} | {exited, End, IsAlone} | gone
        ///     | wait | closed | badarg
        nif("process_event", 1) { env, _, arguments in
            process(env, arguments)?.event(env) ?? atoms.badarg
        },
        /// process_read(Process, stdout | stderr, MaxBytes, watch | look | yield)
        ///     -> {ok, Binary} | {last, Binary} | wait | eof | {error, Posix} | badarg
        nif("process_read", 4) { env, _, arguments in
            guard let process = process(env, arguments), let arguments,
                let limit = integer(env, arguments[2]),
                limit > 0
            else { return atoms.badarg }
            let attention: ProcessStream.Attention =
                switch arguments[3] {
                case atoms.look: .look
                case atoms.yield: .yield
                default: .watch
                }
            let output: ProcessStream.Output = arguments[1] == atoms.stderr ? .error : .standard
            return process.read(env, output, atMost: limit, attention)
        },
        /// process_available(Process) -> {Stdout, Stderr}, each bytes that can be read, or eof | badarg
        nif("process_available", 1) { env, _, arguments in
            process(env, arguments)?.available(env) ?? atoms.badarg
        },
        /// process_write(Process, Iodata, Limit) -> {ok, Queued} | busy | {error, closed | Posix} | badarg
        nif("process_write", 3) { env, _, arguments in
            guard let process = process(env, arguments), let arguments, let limit = integer(env, arguments[2])
            else { return atoms.badarg }
            return process.write(env, arguments[1], limit: limit)
        },
        /// process_flush(Process) -> {ok, Queued} | {error, closed | Posix} | badarg
        nif("process_flush", 1) { env, _, arguments in
            process(env, arguments)?.flush(env) ?? atoms.badarg
        },
        /// process_close_input(Process) -> ok | badarg
        nif("process_close_input", 1) { env, _, arguments in
            guard let process = process(env, arguments) else { return atoms.badarg }
            process.closeInput(env)
            return atoms.ok
        },
        /// process_close_output(Process, stdout | stderr) -> ok | badarg
        nif("process_close_output", 2) { env, _, arguments in
            guard let process = process(env, arguments), let arguments else { return atoms.badarg }
            process.closeOutput(env, arguments[1] == atoms.stderr ? .error : .standard)
            return atoms.ok
        },
        /// process_resize(Process, {Rows, Columns}) -> ok | no_pty | closed | {error, Posix} | badarg
        nif("process_resize", 2) { env, _, arguments in
            guard let process = process(env, arguments), let arguments,
                let size = terminalSize(env, arguments[1])
            else { return atoms.badarg }
            return process.resize(env, size)
        },
        /// process_signal(Process, Number, process | group | tree) -> ok | closed | badarg
        nif("process_signal", 3) { env, _, arguments in
            guard let process = process(env, arguments), let arguments,
                let number = integer(env, arguments[1]).flatMap({ Int32(exactly: $0) })
            else { return atoms.badarg }
            let target: GuardianCommand.Target =
                switch arguments[2] {
                case atoms.group: .group
                case atoms.tree: .tree
                default: .program
                }
            return process.tell(.signal(number, to: target)) ? atoms.ok : atoms.closed
        },
        /// process_end(Process) -> ok | closed | badarg: ends what is left; `gone` tells when that is done.
        nif("process_end", 1) { env, _, arguments in
            guard let process = process(env, arguments) else { return atoms.badarg }
            return process.tell(.end) ? atoms.ok : atoms.closed
        },
        /// process_close(Process) -> ok | badarg
        nif("process_close", 1) { env, _, arguments in
            guard let process = process(env, arguments) else { return atoms.badarg }
            process.close(env)
            return atoms.ok
        },
    ]
}

private func process(_ env: EnvPointer?, _ arguments: UnsafePointer<Term>?) -> ProcessStream? {
    guard let arguments else { return nil }
    return resourceTypes.process.object(env, arguments[0])
}
