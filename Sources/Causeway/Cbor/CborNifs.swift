import Beam
import CErlNif
import Streams

/// How many terms a normal scheduler converts before a dirty one begins anew, and of how many bytes it reads them: well
/// under a millisecond.
private let itemsAtOnce = 4096
private let bytesAtOnce = 128 << 10

/// CBOR for Erlang. What is long is converted on a dirty scheduler.
var cborNifs: [ErlNifFunc] {
    [
        /// cbor_encode(Term) -> {ok, Binary} | {error, Text}
        nif("cbor_encode", 1) { env, count, arguments in
            guard let arguments else { return atoms.badarg }
            return encoded(env, arguments[0], items: itemsAtOnce)
                ?? onDirtyScheduler(env, "cbor_encode", count, arguments) { env, _, arguments in
                    guard let arguments else { return atoms.badarg }
                    return encoded(env, arguments[0], items: .max) ?? atoms.badarg
                }
        },
        /// cbor_decode(Binary) -> {ok, Term, Rest} | {error, Text} | badarg
        nif("cbor_decode", 1) { env, count, arguments in
            guard let arguments else { return atoms.badarg }
            return decoded(env, arguments[0], items: itemsAtOnce)
                ?? onDirtyScheduler(env, "cbor_decode", count, arguments) { env, _, arguments in
                    guard let arguments else { return atoms.badarg }
                    return decoded(env, arguments[0], items: .max) ?? atoms.badarg
                }
        },
    ]
}

/// Nil where there are more items.
private func encoded(_ env: EnvPointer?, _ term: Term, items: Int) -> Term? {
    var encoder = CborTermWriter(env: env, items: items)
    do throws(CborTermWriter.Stop) {
        try encoder.write(term)
    } catch {
        guard case .noForm(let text) = error else { return nil }
        return failure(env, text)
    }
    let binary = encoder.writer.bytes.withUnsafeBytes { makeBinary(env, $0) }
    return binary.map { makeTuple(env, atoms.ok, $0) } ?? failure(env, "there is no memory for the CBOR")
}

/// Nil where there is more than may be done at once.
private func decoded(_ env: EnvPointer?, _ binary: Term, items: Int) -> Term? {
    var inspected = ErlNifBinary()
    guard enif_inspect_binary(env, binary, &inspected) != 0 else { return atoms.badarg }
    // A single text is work as well: it must be UTF-8.
    guard items == .max || inspected.size <= bytesAtOnce else { return nil }
    let bytes = UnsafeRawBufferPointer(start: inspected.data, count: inspected.size)
    var decoder = CborTermReader(env: env, binary, bytes, items: items)
    do throws(CborTermReader.Stop) {
        let term = try decoder.term()
        return makeTuple(env, atoms.ok, term, decoder.rest)
    } catch {
        guard case .malformed(let error) = error else { return nil }
        return failure(env, error.text)
    }
}

private func failure(_ env: EnvPointer?, _ text: String) -> Term {
    makeTuple(env, atoms.error, makeBinary(env, text))
}

/// Has the BEAM call a function again where it may take its time.
///
/// The corresponding C function is `enif_schedule_nif`.
private func onDirtyScheduler(
    _ env: EnvPointer?, _ name: StaticString, _ count: Int32, _ arguments: UnsafePointer<Term>,
    _ function: NifFunction
) -> Term {
    enif_schedule_nif(
        env, cString(name), Int32(bitPattern: ERL_NIF_DIRTY_JOB_CPU_BOUND.rawValue), function, count,
        arguments)
}
