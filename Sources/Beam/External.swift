import CErlNif

// The NIF interface has no integers beyond 64 bits and no atoms beyond Latin-1. Both travel in
// the external term format, which is documented and stable (ERTS user's guide, chapter 12).

/// Makes an integer of any size from its magnitude, least significant byte first.
///
/// Nil when the BEAM refuses it: its integers end at 4 million bits or where memory does.
public func makeBigInteger(_ env: EnvPointer?, isNegative: Bool, magnitude: UnsafeRawBufferPointer) -> Term? {
    var bytes: [UInt8] = [131]
    if let size = UInt8(exactly: magnitude.count) {
        bytes += [110, size, isNegative ? 1 : 0]
    } else if let size = UInt32(exactly: magnitude.count) {
        bytes.append(111)
        withUnsafeBytes(of: size.bigEndian) { bytes.append(contentsOf: $0) }
        bytes.append(isNegative ? 1 : 0)
    } else {
        return nil
    }
    bytes.append(contentsOf: magnitude)
    return decodeExternal(env, bytes)
}

/// Makes an atom from any name of at most 255 code points.
public func makeAtom(_ env: EnvPointer?, _ name: String) -> Term? {
    let utf8 = Array(name.utf8)
    guard let size = UInt16(exactly: utf8.count) else { return nil }
    return decodeExternal(
        env, [131, 118, UInt8(truncatingIfNeeded: size >> 8), UInt8(truncatingIfNeeded: size)] + utf8)
}

/// Finds an atom that exists already; for ASCII names only, others are not looked for. The corresponding C
/// function is `enif_make_existing_atom_len`.
public func existingAtom(_ env: EnvPointer?, _ name: String) -> Term? {
    var name = name
    return name.withUTF8 { utf8 -> Term? in
        guard let base = utf8.baseAddress, utf8.allSatisfy({ $0 < 128 }), utf8.count < 256 else { return nil }
        var atom: Term = 0
        let found = UnsafeRawPointer(base).withMemoryRebound(to: CChar.self, capacity: utf8.count) {
            enif_make_existing_atom_len(env, $0, utf8.count, &atom, ERL_NIF_LATIN1)
        }
        return found != 0 ? atom : nil
    }
}

private func decodeExternal(_ env: EnvPointer?, _ bytes: [UInt8]) -> Term? {
    var term: Term = 0
    let used = bytes.withUnsafeBufferPointer { enif_binary_to_term(env, $0.baseAddress, $0.count, &term, 0) }
    return used == bytes.count ? term : nil
}

/// Runs `body` on the sign and the magnitude, least significant byte first, of an integer beyond 64
/// bits. Nil when the term is no integer. The corresponding C function is `enif_term_to_binary`.
public func withBigInteger<Result>(
    _ env: EnvPointer?, _ term: Term,
    _ body: (_ isNegative: Bool, _ magnitude: UnsafeRawBufferPointer) -> Result
) -> Result? {
    var external = ErlNifBinary()
    guard enif_term_to_binary(env, term, &external) != 0 else { return nil }
    defer { enif_release_binary(&external) }
    let bytes = UnsafeRawBufferPointer(start: external.data, count: external.size)
    guard bytes.count > 3 else { return nil }
    // SMALL_BIG_EXT has one byte of length, LARGE_BIG_EXT four; then the sign, then the magnitude.
    let header = bytes[1] == 110 ? 3 : 6
    guard bytes[1] == 110 || bytes[1] == 111, bytes.count > header else { return nil }
    return body(bytes[header] != 0, UnsafeRawBufferPointer(rebasing: bytes[(header + 1)...]))
}
