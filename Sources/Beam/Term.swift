import CErlNif

/// A pointer to an environment in which terms live, as the C functions take it.
public typealias EnvPointer = OpaquePointer

/// An Erlang term. It is valid as long as the environment in which it was made or found.
public typealias Term = ERL_NIF_TERM

/// Whether the process that loaded this library is a BEAM. Where it is not, every `enif_*` is NULL and
/// nothing in this module may be used.
public var hostIsBeam: Bool { cerlnif_host_is_beam() != 0 }

/// The C string of a literal.
@inlinable
public func cString(_ literal: StaticString) -> UnsafePointer<CChar> {
    // A StaticString is NUL-terminated and lives for ever.
    UnsafeRawPointer(literal.utf8Start).assumingMemoryBound(to: CChar.self)
}

/// Atoms are immediate values, the same in every environment and for ever.
///
/// The corresponding C function is `enif_make_atom`, which needs an environment only by its signature.
public struct Atom: Sendable {
    /// The term.
    public let term: Term

    /// Makes or finds an atom. `name` must be ASCII and at most 255 characters. The corresponding C
    /// function is `enif_make_atom_len`.
    public init(_ env: EnvPointer?, _ name: StaticString) {
        term = enif_make_atom_len(
            env, UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self), name.utf8CodeUnitCount)
    }
}

// MARK: Making terms

/// Makes a tuple of any number of elements. The corresponding C function is `enif_make_tuple_from_array`.
@inlinable
public func makeTuple(_ env: EnvPointer?, _ elements: Term...) -> Term {
    elements.withUnsafeBufferPointer {
        enif_make_tuple_from_array(env, $0.baseAddress, UInt32(truncatingIfNeeded: $0.count))
    }
}

/// Makes a pair without an array in between.
@inlinable
public func makeTuple(_ env: EnvPointer?, _ first: Term, _ second: Term) -> Term {
    withUnsafeTemporaryAllocation(of: Term.self, capacity: 2) { elements in
        elements[0] = first
        elements[1] = second
        return enif_make_tuple_from_array(env, elements.baseAddress, 2)
    }
}

/// Makes a binary from bytes, which are copied. Nil when memory is short. The corresponding C function is
/// `enif_make_new_binary`.
@inlinable
public func makeBinary(_ env: EnvPointer?, _ bytes: UnsafeRawBufferPointer) -> Term? {
    var term: Term = 0
    guard let memory = enif_make_new_binary(env, bytes.count, &term) else { return nil }
    if let base = bytes.baseAddress {
        UnsafeMutableRawPointer(memory).copyMemory(from: base, byteCount: bytes.count)
    }
    return term
}

/// Makes a binary from text, as UTF-8. Empty when memory is short.
public func makeBinary(_ env: EnvPointer?, _ text: String) -> Term {
    var text = text
    return text.withUTF8 { makeBinary(env, UnsafeRawBufferPointer($0)) }
        ?? enif_make_list_from_array(env, nil, 0)
}

/// Makes a string as Erlang has them: a list of code points.
public func makeCharacterList(_ env: EnvPointer?, _ text: String) -> Term {
    var list = enif_make_list_from_array(env, nil, 0)
    for scalar in text.unicodeScalars.reversed() {
        list = enif_make_list_cell(env, enif_make_uint(env, scalar.value), list)
    }
    return list
}

/// Makes a list. The corresponding C function is `enif_make_list_from_array`.
public func makeList(_ env: EnvPointer?, _ elements: [Term]) -> Term {
    elements.withUnsafeBufferPointer {
        enif_make_list_from_array(env, $0.baseAddress, UInt32(truncatingIfNeeded: $0.count))
    }
}

/// Makes a map. The keys must differ; with equal keys the result is the map of the pairs before them. The
/// corresponding C function is `enif_make_map_put`.
public func makeMap(_ env: EnvPointer?, _ pairs: [(Term, Term)]) -> Term {
    var map = enif_make_new_map(env)
    for (key, value) in pairs { _ = enif_make_map_put(env, map, key, value, &map) }
    return map
}

// MARK: Reading terms

/// A signed number that fits 64 bits. The corresponding C function is `enif_get_long`.
@inlinable
public func integer(_ env: EnvPointer?, _ term: Term) -> Int? {
    var value = 0
    return enif_get_long(env, term, &value) != 0 ? value : nil
}

/// Runs `body` on the bytes of a binary; nil for another term.
///
/// The bytes are those of the term: valid until its environment is cleared, and not a copy. The
/// corresponding C function is `enif_inspect_binary`.
@inlinable
public func withBinary<Result>(
    _ env: EnvPointer?, _ term: Term, _ body: (UnsafeRawBufferPointer) -> Result
) -> Result? {
    var binary = ErlNifBinary()
    guard enif_inspect_binary(env, term, &binary) != 0 else { return nil }
    return body(UnsafeRawBufferPointer(start: binary.data, count: binary.size))
}

/// The text of a binary, an iolist or an atom, as UTF-8. Nil for other terms and other encodings. The
/// corresponding C functions are `enif_inspect_iolist_as_binary` and `enif_get_atom`.
public func text(_ env: EnvPointer?, _ term: Term) -> String? {
    if enif_is_atom(env, term) != 0 { return atomName(env, term) }
    var binary = ErlNifBinary()
    guard enif_inspect_iolist_as_binary(env, term, &binary) != 0 else { return nil }
    return String(validating: UnsafeBufferPointer(start: binary.data, count: binary.size), as: UTF8.self)
}

/// The name of an atom.
///
/// OTP 25 reads atoms as Latin-1 only; names beyond that go through the external term format. The
/// corresponding C function is `enif_get_atom`.
public func atomName(_ env: EnvPointer?, _ term: Term) -> String? {
    let name = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer -> String? in
        let size = enif_get_atom(env, term, buffer.baseAddress, 256, ERL_NIF_LATIN1)
        guard size > 0 else { return nil }
        var name = ""
        // Without the NUL; a Latin-1 byte is its own code point.
        for byte in buffer.prefix(Int(size) - 1) {
            name.unicodeScalars.append(Unicode.Scalar(UInt8(bitPattern: byte)))
        }
        return name
    }
    return name ?? wideAtomName(env, term)
}

private func wideAtomName(_ env: EnvPointer?, _ term: Term) -> String? {
    var external = ErlNifBinary()
    guard enif_is_atom(env, term) != 0, enif_term_to_binary(env, term, &external) != 0 else { return nil }
    defer { enif_release_binary(&external) }
    let bytes = UnsafeBufferPointer(start: external.data, count: external.size)
    // 131, then SMALL_ATOM_UTF8_EXT (119, one byte of length) or ATOM_UTF8_EXT (118, two bytes).
    guard bytes.count > 3 else { return nil }
    let start = bytes[1] == 119 ? 3 : 4
    guard bytes[1] == 119 || bytes[1] == 118, bytes.count >= start else { return nil }
    return String(validating: bytes[start...], as: UTF8.self)
}
