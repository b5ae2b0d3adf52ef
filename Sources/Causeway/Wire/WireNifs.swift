import Beam
import CErlNif
import Glibc
import Streams

/// The Erlang half of wires. They are for the process that has opened them.
var wireNifs: [ErlNifFunc] {
    [
        /// wire_open(InputFd, OutputFd) -> {ok, Wire} | {error, badf | eperm | Posix}
        ///
        /// Takes over what `duplicate` made, exactly when the result is ok; both may be the same. Neither blocks any
        /// more, nor do other descriptors of the same open file. `eperm`: a file, which nobody can wait for.
        nif("wire_open", 2) { env, _, arguments in
            guard let arguments, let input = descriptor(env, arguments[0]),
                let output = descriptor(env, arguments[1])
            else { return makeError(env, atoms.badf) }
            do throws(Errno) {
                guard try isWaitable(input), try isWaitable(output) else {
                    return makeError(env, atoms.eperm)
                }
                try makeNonBlocking(input)
                try makeNonBlocking(output)
            } catch { return makeError(env, error) }
            let wire = Wire(env, input: input, output: output)
            return wire.term(env).map { makeTuple(env, atoms.ok, $0) } ?? makeError(env, atoms.badf)
        },
        /// wire_read(Wire, MaxBytes, Watch) -> {ok, Binary} | empty | closed | {error, Posix} | badarg
        ///
        /// Where it is `empty` and Watch is true, `{causeway_wire, readable}` follows.
        nif("wire_read", 3) { env, _, arguments in
            guard let wire = wire(env, arguments), let arguments,
                let limit = integer(env, arguments[1]), limit > 0
            else { return atoms.badarg }
            return wire.read(env, atMost: min(limit, 1 << 24), watching: arguments[2] == atoms.true)
        },
        /// wire_gather(Wire, Beginning, Size) -> ok | {error, enomem} | badarg
        ///
        /// What `wire_fill` reads is a binary of so many bytes, which begins with these.
        nif("wire_gather", 3) { env, _, arguments in
            guard let wire = wire(env, arguments), let arguments, let size = integer(env, arguments[2]),
                case let isBegun?? = withBinary(env, arguments[1], { wire.gather($0, size: size) })
            else { return atoms.badarg }
            return isBegun ? atoms.ok : makeError(env, Errno(ENOMEM))
        },
        /// wire_fill(Wire, Watch) -> {ok, Binary} | {more, Bytes} | empty | closed | {error, Posix} | badarg
        ///
        /// Reads some of it; `{ok, Binary}` is all of it, and `{more, Bytes}` how much has come by this call.
        nif("wire_fill", 2) { env, _, arguments in
            guard let wire = wire(env, arguments), let arguments else { return atoms.badarg }
            return wire.fill(env, watching: arguments[1] == atoms.true) ?? atoms.badarg
        },
        /// wire_write(Wire, [Binary]) -> {ok | busy, Bytes} | {error, Posix} | badarg
        ///
        /// After `busy`, `{causeway_wire, writable}` follows. After `ok` there may be a rest, too, for the next call.
        nif("wire_write", 2) { env, _, arguments in
            guard let wire = wire(env, arguments), let arguments else { return atoms.badarg }
            return wire.write(env, arguments[1]) ?? atoms.badarg
        },
        /// wire_close_output(Wire) -> ok | badarg
        nif("wire_close_output", 1) { env, _, arguments in
            guard let wire = wire(env, arguments) else { return atoms.badarg }
            wire.closeOutput(env)
            return atoms.ok
        },
        /// wire_close(Wire) -> ok | badarg
        nif("wire_close", 1) { env, _, arguments in
            guard let wire = wire(env, arguments) else { return atoms.badarg }
            wire.close(env)
            return atoms.ok
        },
    ]
}

private func wire(_ env: EnvPointer?, _ arguments: UnsafePointer<Term>?) -> Wire? {
    guard let arguments else { return nil }
    return resourceTypes.wire.object(env, arguments[0])
}

private func isWaitable(_ number: Int32) throws(Errno) -> Bool {
    switch try Descriptor.kind(of: number) {
    case .socket, .stream: true
    case .datagramSocket, .listener, .file: false
    }
}

private func makeNonBlocking(_ number: Int32) throws(Errno) {
    let descriptor = Descriptor(owning: number)
    var failure: Errno?
    do throws(Errno) { try descriptor.makeNonBlocking() } catch { failure = error }
    // It stays the caller's, also where this fails.
    _ = descriptor.release()
    if let failure { throw failure }
}
